import test from "ava";
import { passwordIn } from "../src/adapters/postgres/password.ts";
import { isPostgresUrl, type PostgresLocation, parsePostgresUrl } from "../src/domain/postgres-url.ts";

const place = (change: Partial<PostgresLocation> = {}): PostgresLocation => ({
  host: "localhost",
  port: 5432,
  database: "strongroom",
  user: undefined,
  password: undefined,
  tls: "disable",
  caFile: undefined,
  ...change,
});

const good: [url: string, location: PostgresLocation][] = [
  ["postgres://localhost/strongroom", place()],
  ["postgresql://u@127.0.0.1:6000/x", place({ host: "127.0.0.1", port: 6000, database: "x", user: "u" })],
  ["postgres://u%40x:p%3A%2F@[::1]/d%20b", place({ host: "::1", user: "u@x", password: "p:/", database: "d b" })],
  ["postgres:///x?host=/run/postgresql&user=u", place({ host: "/run/postgresql", database: "x", user: "u" })],
  ["postgres://u@%2Frun%2Fpostgresql/x", place({ host: "/run/postgresql", database: "x", user: "u" })],
  ["postgres://db/x?sslmode=disable", place({ host: "db", database: "x" })],
  ["postgres://db/x?sslmode=require", place({ host: "db", database: "x", tls: "require" })],
  [
    "postgres://db/x?sslmode=verify-full&sslrootcert=/ca.pem",
    place({ host: "db", database: "x", tls: "verify-full", caFile: "/ca.pem" }),
  ],
  ["postgres://db/x?sslrootcert=system", place({ host: "db", database: "x", tls: "verify-full" })],
  ["postgres://localhost/x?password=p&port=7", place({ database: "x", password: "p", port: 7 })],
];
for (const [url, location] of good) {
  test(`understood: ${url}`, (t) => {
    t.true(isPostgresUrl(url));
    t.deepEqual(parsePostgresUrl(url), location);
  });
}

const bad: [url: string, message: RegExp][] = [
  ["postgres://u:hunter2@db/x", /must say sslmode/],
  ["postgres://u:hunter2@db/x?sslmode=prefer", /expected sslmode=/],
  ["postgres://u:hunter2@localhost/x?sslmode=require&sslrootcert=/ca", /verify-full/],
  ["postgres://u:hunter2@localhost", /name of one database/],
  ["postgres://u:hunter2@localhost/a/b", /name of one database/],
  ["postgres:///x?password=hunter2", /host is missing/],
  ["postgres://u:hunter2@a,b/x?sslmode=require", /one host/],
  ["postgres://u:hunter2@localhost:70000/x", /cannot be read/],
  ["postgres://u:hunter2@localhost/x?port=0", /port/],
  ["postgres://u:hunter2%@localhost/x", /percent-encoding/],
  ["postgres://u:hunter2/#@localhost/x", /./],
  ["postgres://localhost/x?pasword=hunter2", /parameter of the URL is not known/],
  ["postgres://localhost/x?sslcert=hunter2", /parameter of the URL is not known/],
];
for (const [url, message] of bad) {
  test(`refused, without repeating it: ${url}`, (t) => {
    const error = t.throws(() => parsePostgresUrl(url), { instanceOf: RangeError, message });
    t.false(error!.message.includes("hunter2"));
  });
}

test("the password of a .pgpass file is that of the first line that fits", (t) => {
  const file = [
    "# a comment: not:a:line",
    "short:line",
    "db:5432:strongroom:other:wrong",
    "db:5433:*:strongroom:of\\:port\\\\",
    "*:*:strongroom:strongroom:any:rest",
    "localhost:*:*:*:local",
    "db:*:*:*:last",
    "",
  ].join("\r\n");
  const of = (change: Partial<PostgresLocation>) =>
    passwordIn(file, place({ host: "db", user: "strongroom", ...change }));
  t.is(of({}), "any");
  t.is(of({ port: 5433 }), "of:port\\");
  t.is(of({ user: "other" }), "wrong");
  t.is(of({ database: "x" }), "last");
  t.is(of({ host: "/run/postgresql", database: "x" }), "local");
  t.is(of({ host: "elsewhere", database: "x" }), undefined);
});
