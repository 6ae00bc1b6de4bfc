import { HTTP_API_ROUTES, type HttpApiRoute } from "../../calls/routes.ts";

/** What a path of the HTTP API means. */
export type FoundPath =
  | { readonly route: HttpApiRoute; readonly params: Readonly<Record<string, string>> }
  /** There is such a path, for these methods only; none when there is no such path. */
  | { readonly route: undefined; readonly methods: readonly string[] };

const PREFIX = /^\/api\/(?:stable|alpha)\//;

const PATTERNS = (Object.keys(HTTP_API_ROUTES) as HttpApiRoute[]).map((route) => {
  const [method, path] = route.split(" ") as [string, string];
  return { route, method, parts: path.slice("/api/".length).split("/") };
});

/** Whether a path is one of the HTTP API, whether or not something is there. */
export function isApiPath(path: string): boolean {
  return path.startsWith("/api/");
}

/** Finds what a method and path mean. `HEAD` means what `GET` does. */
export function findPath(method: string, path: string): FoundPath {
  const parts = PREFIX.test(path) ? path.replace(PREFIX, "").split("/").map(decoded) : [];
  const fitting = PATTERNS.filter(
    (pattern) =>
      pattern.parts.length === parts.length &&
      pattern.parts.every((part, i) => (part.startsWith(":") ? parts[i] !== "" : part === parts[i])),
  );
  const asked = method === "HEAD" ? "GET" : method;
  const found = fitting.find((pattern) => pattern.method === asked);
  if (found === undefined) return { route: undefined, methods: fitting.map((pattern) => pattern.method) };
  const params = found.parts.flatMap((part, i) => (part.startsWith(":") ? [[part.slice(1), parts[i]!]] : []));
  return { route: found.route, params: Object.fromEntries(params) as Record<string, string> };
}

function decoded(part: string): string {
  try {
    const text = decodeURIComponent(part);
    // No name has control characters, and the database takes none of them.
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
    return /[\u0000-\u001f\u007f]/.test(text) ? part : text;
  } catch {
    // Half an escape is a name that nobody has.
    return part;
  }
}
