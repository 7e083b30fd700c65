import type { ListRequest } from "../gen/pluginstate/v1/plugin_state_service_pb.ts";
import { InvalidField } from "../state/errors.ts";
import { intersect, prefixRange } from "../state/key-order.ts";
import { defaultPageSize, maxKeyBytes, maxPageBytes, maxPageSize } from "../state/limits.ts";
import type { KeyRange, ListEntries } from "../state/requests.ts";
import { foreignPageToken, type PagedRequest, readPageToken } from "./page-token.ts";
import { parseNamespace, parseOptionalText, parseScope } from "./parse.ts";

/** A page to read, and what its token for the next one must be bound to. */
export interface ListPage {
  readonly list: ListEntries;
  readonly boundTo: PagedRequest;
}

/**
 * @param pluginId Page tokens are bound to it, beside the request.
 * @throws {InvalidField} {@link TooLarge}
 */
export function parseList(request: ListRequest, pluginId: string): ListPage {
  const scope = parseScope(request.scope);
  const namespace = parseNamespace(request.namespace);
  const bounds = parseBounds(request);
  const { reverse, keysOnly } = request;
  const { prefix, start, startAfter, end } = bounds;
  const place = [scope.kind, scope.id, namespace];
  const fields = [...place, prefix, start, startAfter, end, reverse, keysOnly];
  const boundTo = { pluginId, rpc: "List", fields };
  const range = intersect(rangeOf(bounds), rangeAfter(request, boundTo));
  const pageSize = parsePageSize(request.pageSize);
  const list = { scope, namespace, range, reverse, keysOnly, pageSize, pageBytes: maxPageBytes };
  return { list, boundTo };
}

type Bounds = Pick<ListRequest, "prefix" | "start" | "startAfter" | "end">;

function parseBounds(request: ListRequest): Bounds {
  if (request.start !== "" && request.startAfter !== "") {
    throw new InvalidField("start_after", "can't be given together with start");
  }
  return {
    prefix: parseOptionalText("prefix", request.prefix, maxKeyBytes),
    start: parseOptionalText("start", request.start, maxKeyBytes),
    startAfter: parseOptionalText("start_after", request.startAfter, maxKeyBytes),
    end: parseOptionalText("end", request.end, maxKeyBytes),
  };
}

function rangeOf({ prefix, start, startAfter, end }: Bounds): KeyRange {
  const asked: KeyRange = {
    from: start || startAfter || undefined,
    fromIncluded: startAfter === "",
    before: end || undefined,
  };
  return intersect(asked, prefixRange(prefix));
}

/** What is left after the page that the request's token ends; everything without a token. */
function rangeAfter(request: ListRequest, boundTo: PagedRequest): KeyRange {
  const everything: KeyRange = { from: undefined, fromIncluded: true, before: undefined };
  if (request.pageToken === "") {
    return everything;
  }
  const [lastKey, ...more] = readPageToken(request.pageToken, boundTo);
  if (lastKey === undefined || more.length > 0) {
    throw foreignPageToken();
  }
  return request.reverse
    ? { ...everything, before: lastKey }
    : { ...everything, from: lastKey, fromIncluded: false };
}

/** @throws {InvalidField} */
export function parsePageSize(pageSize: number): number {
  if (pageSize < 0) {
    throw new InvalidField("page_size", "must not be negative");
  }
  return pageSize === 0 ? defaultPageSize : Math.min(pageSize, maxPageSize);
}
