/** Every client that works has one connection, seldom a few. */
export const defaultMaxConnections = 256;

/**
 * Long enough for the longest call that makes sense, a DeleteRange of some hundred thousand entries (a repetition goes
 * on where it ended); what a call may hold meanwhile is bounded by itself. In milliseconds.
 */
export const defaultMaxCallMs = 300_000;
