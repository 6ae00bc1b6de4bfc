import { execFileSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { create, createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { type FileDescriptorProto, FileDescriptorProtoSchema, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { createClient, createRouterTransport } from "@connectrpc/connect";
import { ServerReflection } from "@strongroom/gen/grpc/reflection/v1/reflection_pb";
import { ServerReflection as ServerReflectionV1Alpha } from "@strongroom/gen/grpc/reflection/v1alpha/reflection_pb";
import test, { type ExecutionContext } from "ava";
import { ReflectionIndex } from "../src/transport/reflection-index.ts";
import { reflectionServices } from "../src/transport/reflection-service.ts";
import { SERVICES } from "../src/transport/router.ts";
import { ServingState } from "../src/transport/serving-state.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const NAMES = SERVICES.map((service) => service.typeName);
const NOT_FOUND = 5;
const INVALID_ARGUMENT = 3;

/** Both versions over the protocol's own code, without a network. */
function clients(index: ReflectionIndex, state = new ServingState(async () => {})) {
  const reflection = reflectionServices(index, NAMES, state);
  const transport = createRouterTransport((router) => {
    router.service(ServerReflection, reflection.v1).service(ServerReflectionV1Alpha, reflection.v1alpha);
  });
  return [createClient(ServerReflection, transport), createClient(ServerReflectionV1Alpha, transport)] as const;
}

type Question =
  | { case: "listServices" | "fileByFilename" | "fileContainingSymbol" | "allExtensionNumbersOfType"; value: string }
  | { case: "fileContainingExtension"; value: { containingType: string; extensionNumber: number } }
  | { case: undefined };

/** Asks all of it in one stream. */
async function ask(client: ReturnType<typeof clients>[number], questions: readonly Question[]) {
  async function* requests() {
    for (const messageRequest of questions) yield { host: "here", messageRequest };
  }
  const answers = [];
  for await (const { validHost, originalRequest, messageResponse } of client.serverReflectionInfo(requests())) {
    answers.push({ validHost, question: originalRequest?.messageRequest, answer: messageResponse });
  }
  return answers;
}

type Answer = Awaited<ReturnType<typeof ask>>[number]["answer"];

/** The files of an answer. They must be complete: a registry cannot be made of files whose imports are missing. */
function filesOf(t: ExecutionContext, answer: Answer, what: string): FileDescriptorProto[] {
  if (answer.case !== "fileDescriptorResponse") {
    t.fail(`${what}: ${answer.case}`);
    return [];
  }
  const files = answer.value.fileDescriptorProto.map((bytes) => fromBinary(FileDescriptorProtoSchema, bytes));
  t.is(new Set(files.map((file) => file.name)).size, files.length, what);
  const ordered = new Set<FileDescriptorProto>();
  const add = (name: string) => {
    const file = files.find((each) => each.name === name);
    file?.dependency.forEach(add);
    if (file !== undefined) ordered.add(file);
  };
  add(files[0]!.name);
  t.is(ordered.size, files.length, what);
  t.notThrows(() => createFileRegistry(create(FileDescriptorSetSchema, { file: [...ordered] })), what);
  return files;
}

/** Every name of a descriptor set with the file that declares it, as another implementation finds them. */
function namesOf(set: Uint8Array): Map<string, string> {
  const names = new Map<string, string>();
  const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, set));
  for (const desc of registry) {
    const file = `${desc.file.name}.proto`;
    names.set(desc.typeName, file);
    const scope = desc.typeName.split(".").slice(0, -1).join(".");
    if (desc.kind === "service") for (const m of desc.methods) names.set(`${desc.typeName}.${m.name}`, file);
    if (desc.kind === "message") {
      for (const field of desc.fields) names.set(`${desc.typeName}.${field.name}`, file);
      for (const oneof of desc.oneofs) names.set(`${desc.typeName}.${oneof.name}`, file);
    }
    if (desc.kind === "enum") for (const value of desc.values) names.set(`${scope}.${value.name}`, file);
  }
  return names;
}

/** A descriptor set with extensions and nested names, which the contract does not have, made by buf. */
async function withExtensions(): Promise<Uint8Array> {
  const dir = await mkdtemp(join(tmpdir(), "strongroom-reflection-"));
  try {
    await writeFile(join(dir, "buf.yaml"), "version: v2\n");
    await writeFile(
      join(dir, "base.proto"),
      'syntax = "proto2"; package base; message Open { extensions 100 to 200; } message Closed {}',
    );
    await writeFile(
      join(dir, "more.proto"),
      `syntax = "proto2"; package more; import "base.proto";
      extend base.Open { optional string second = 120; }
      message Outer { extend base.Open { optional int32 first = 110; }
        message Inner { optional bool flag = 1; enum Kind { KIND_ONE = 1; } oneof either { string a = 2; } } }`,
    );
    return execFileSync(join(ROOT, "node_modules/.bin/buf"), ["build", "--as-file-descriptor-set", "-o", "-"], {
      cwd: dir,
    });
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

test("every symbol of the contract leads to its file with all imports and comments, in both versions", async (t) => {
  const set = execFileSync(join(ROOT, "node_modules/.bin/buf"), ["build", "--as-file-descriptor-set", "-o", "-"], {
    cwd: ROOT,
  });
  const names = [...namesOf(set)];
  t.true(names.length > 300);
  for (const name of [
    "strongroom.v1.UploadService.WriteSegment",
    "strongroom.v1.WriteSegmentRequest.frame",
    "strongroom.v1.ERROR_REASON_QUOTA_EXCEEDED",
    "google.rpc.QuotaFailure.Violation",
    "grpc.health.v1.HealthCheckResponse.SERVING",
  ]) {
    t.true(
      names.some(([each]) => each === name),
      name,
    );
  }
  for (const client of clients(ReflectionIndex.ofContract())) {
    const questions = names.map(([value]) => ({ case: "fileContainingSymbol" as const, value }));
    const answers = await ask(client, questions);
    t.is(answers.length, names.length);
    for (const [i, { answer, question, validHost }] of answers.entries()) {
      const [name, file] = names[i]!;
      const files = filesOf(t, answer, name);
      t.is(files[0]?.name, file, name);
      t.is(question?.value, name);
      t.is(validHost, "here");
      const { location } = files[0]!.sourceCodeInfo!;
      if (!file.startsWith("google/protobuf/"))
        t.true(
          location.some((l) => l.leadingComments !== ""),
          name,
        );
    }
  }
});

test("services are listed, and files come by name", async (t) => {
  const index = ReflectionIndex.ofContract();
  for (const client of clients(index)) {
    const [list, byName] = await ask(client, [
      { case: "listServices", value: "*" },
      { case: "fileByFilename", value: "google/rpc/error_details.proto" },
    ]);
    const listed = list!.answer.case === "listServicesResponse" ? list!.answer.value.service.map((s) => s.name) : [];
    t.deepEqual(listed, [
      "grpc.health.v1.Health",
      "grpc.reflection.v1.ServerReflection",
      "grpc.reflection.v1alpha.ServerReflection",
      "strongroom.v1.AdminService",
      "strongroom.v1.CollectionService",
      "strongroom.v1.OrganizationService",
      "strongroom.v1.SessionService",
      "strongroom.v1.UploadService",
      "strongroom.v1.VersionService",
    ]);
    const files = filesOf(t, byName!.answer, "by name").map((file) => file.name);
    t.deepEqual(files, ["google/rpc/error_details.proto", "google/protobuf/duration.proto"]);
  }
});

test("what is not there is answered inside the stream, which goes on", async (t) => {
  const questions: Question[] = [
    { case: "fileByFilename", value: "no.proto" },
    { case: "fileByFilename", value: "" },
    { case: "fileContainingSymbol", value: "strongroom.v1.NoService" },
    { case: "fileContainingSymbol", value: "strongroom.v1" },
    { case: "fileContainingSymbol", value: "constructor" },
    { case: "fileContainingSymbol", value: "\ud800".repeat(100) + "x".repeat(10_000) },
    { case: "fileContainingExtension", value: { containingType: "no.Message", extensionNumber: 1 } },
    { case: "fileContainingExtension", value: { containingType: "strongroom.v1.Version", extensionNumber: -1 } },
    { case: "allExtensionNumbersOfType", value: "no.Message" },
    { case: "allExtensionNumbersOfType", value: "strongroom.v1.UploadService" },
  ];
  for (const client of clients(ReflectionIndex.ofContract())) {
    const answers = await ask(client, [
      ...questions,
      { case: undefined },
      { case: "fileContainingSymbol", value: "strongroom.v1.Version" },
    ]);
    for (const [i, { answer }] of answers.slice(0, questions.length).entries()) {
      t.is(answer.case, "errorResponse", JSON.stringify(questions[i]));
      if (answer.case !== "errorResponse") continue;
      t.is(answer.value.errorCode, NOT_FOUND);
      t.regex(answer.value.errorMessage, /^there is no (file|symbol|extension|message) /);
      t.true(answer.value.errorMessage.length < 400);
    }
    const [nothing, good] = answers.slice(questions.length);
    t.is(nothing!.answer.case === "errorResponse" ? nothing!.answer.value.errorCode : 0, INVALID_ARGUMENT);
    t.is(filesOf(t, good!.answer, "after the errors")[0]?.name, "strongroom/v1/resources.proto");
  }
});

test("extensions: by number, by name, all numbers, and nested names", async (t) => {
  const index = new ReflectionIndex(await withExtensions());
  for (const client of clients(index)) {
    const [all, none, first, second, named, nested, value, oneof] = await ask(client, [
      { case: "allExtensionNumbersOfType", value: "base.Open" },
      { case: "allExtensionNumbersOfType", value: "base.Closed" },
      { case: "fileContainingExtension", value: { containingType: "base.Open", extensionNumber: 110 } },
      { case: "fileContainingExtension", value: { containingType: "base.Open", extensionNumber: 120 } },
      { case: "fileContainingSymbol", value: "more.second" },
      { case: "fileContainingSymbol", value: "more.Outer.first" },
      { case: "fileContainingSymbol", value: "more.Outer.Inner.KIND_ONE" },
      { case: "fileContainingSymbol", value: "more.Outer.Inner.either" },
    ]);
    const numbers = (answer: Answer) =>
      answer.case === "allExtensionNumbersResponse" ? [...answer.value.extensionNumber] : answer.case;
    t.deepEqual(numbers(all!.answer), [110, 120]);
    t.deepEqual(numbers(none!.answer), []);
    for (const each of [first, second, named, nested, value, oneof]) {
      const files = filesOf(t, each!.answer, "extension");
      t.deepEqual(
        files.map((file) => file.name),
        ["more.proto", "base.proto"],
      );
    }
  }
});

test("a stream that waits for its next question ends when the server stops", async (t) => {
  const state = new ServingState(async () => {});
  for (const client of clients(ReflectionIndex.ofContract(), state)) {
    async function* requests() {
      yield { messageRequest: { case: "listServices" as const, value: "" } };
      await new Promise(() => {});
    }
    let answers = 0;
    for await (const _ of client.serverReflectionInfo(requests())) {
      answers++;
      state.stop();
    }
    t.true(answers <= 1);
  }
});
