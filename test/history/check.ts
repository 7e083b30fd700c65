import { actsOf } from "./attempts.ts";
import { fillHoles } from "./holes.ts";
import type { History } from "./operation.ts";
import { orderOf } from "./order.ts";
import { replay } from "./replay.ts";
import type { Violation } from "./violation.ts";

/**
 * Checks that a history is strictly serialisable: that there is one order of its operations which
 * keeps to the clock and in which each answers what a plain map would.
 *
 * Nothing has to be searched for, because revisions tell the order: every write has its own, and every
 * reply tells the plugin's at its moment. So this takes little more than a sort. Where replies don't
 * tell (foreign writes, unknown outcomes) anything that may have happened is accepted: what is
 * reported is wrong for sure.
 */
export function checkHistory(history: History): Violation[] {
  const { acts, violations } = actsOf(history.operations);
  const order = orderOf(acts, history);
  if (violations.length + order.violations.length > 0) {
    return [...violations, ...order.violations];
  }
  const holes = fillHoles(acts, order, history);
  return holes.violations.length > 0 ? [...holes.violations] : replay(acts, order, holes, history);
}
