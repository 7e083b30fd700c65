import fc from "fast-check";

// A property whose calls are never answered, or that is still made smaller when its test's time is up, says
// how far it came, and what it had found.
fc.configureGlobal({ interruptAfterTimeLimit: 50_000, markInterruptAsFailure: true });
