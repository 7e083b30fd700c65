/** Whether somebody still waits for an answer: as much of an AbortSignal as is asked of one. */
export interface Cancellation {
  readonly aborted: boolean;
  /** Why; to be thrown. */
  readonly reason: unknown;
  throwIfAborted(): void;
}
