import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  type DescriptorProto,
  type EnumDescriptorProto,
  type FieldDescriptorProto,
  type FileDescriptorProto,
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
} from "@bufbuild/protobuf/wkt";

/**
 * What server reflection can be asked for: the descriptor set that `buf build` makes, by file, symbol and extension.
 * The generated code has descriptors too, but without comments.
 */
export class ReflectionIndex {
  readonly #files = new Map<string, { readonly bytes: Uint8Array; readonly dependencies: readonly string[] }>();
  /** File of every symbol, by full name. */
  readonly #symbols = new Map<string, string>();
  /** Files of the extensions of a message, by number. */
  readonly #extensions = new Map<string, Map<number, string>>();

  /** @param set - a serialized google.protobuf.FileDescriptorSet, every import in it */
  constructor(set: Uint8Array) {
    for (const file of fromBinary(FileDescriptorSetSchema, set).file) this.#addFile(file);
  }

  /** The contract with everything it imports, and the services of other projects that are served. */
  static ofContract(): ReflectionIndex {
    return new ReflectionIndex(readFileSync(fileURLToPath(import.meta.resolve("@strongroom/gen/strongroom.binpb"))));
  }

  /**
   * A file and everything it imports, each as serialized FileDescriptorProto, the file itself first; undefined for an
   * unknown name.
   */
  fileByName(name: string): Uint8Array[] | undefined {
    if (!this.#files.has(name)) return undefined;
    // A set goes on with what is added to it while it is walked.
    const names = new Set([name]);
    for (const each of names) for (const dependency of this.#files.get(each)!.dependencies) names.add(dependency);
    return [...names].map((each) => this.#files.get(each)!.bytes);
  }

  /**
   * The file that declares a service, method, message, field, oneof, enum, enum value or extension, and what it
   * imports.
   */
  fileOfSymbol(name: string): Uint8Array[] | undefined {
    return this.fileByName(this.#symbols.get(name) ?? "");
  }

  /** The file that extends a message by a field of this number, and what it imports. */
  fileOfExtension(type: string, number: number): Uint8Array[] | undefined {
    return this.fileByName(this.#extensions.get(type)?.get(number) ?? "");
  }

  /**
   * The numbers of all extensions of a message, ascending; empty for a message that has none, undefined for what is no
   * message here.
   */
  extensionNumbers(type: string): number[] | undefined {
    const numbers = this.#extensions.get(type);
    return numbers === undefined ? undefined : [...numbers.keys()].sort((a, b) => a - b);
  }

  #addFile(file: FileDescriptorProto): void {
    this.#files.set(file.name, {
      bytes: toBinary(FileDescriptorProtoSchema, file),
      dependencies: file.dependency,
    });
    const scope = file.package === "" ? "" : `${file.package}.`;
    const add = (name: string) => this.#symbols.set(name, file.name);
    for (const service of file.service) {
      add(`${scope}${service.name}`);
      for (const method of service.method) add(`${scope}${service.name}.${method.name}`);
    }
    for (const message of file.messageType) this.#addMessage(file.name, scope, message);
    for (const each of file.enumType) this.#addEnum(file.name, scope, each);
    for (const extension of file.extension) this.#addExtension(file.name, scope, extension);
  }

  #addMessage(file: string, scope: string, message: DescriptorProto): void {
    const name = `${scope}${message.name}`;
    this.#symbols.set(name, file);
    this.#extensionsOf(name);
    for (const field of message.field) this.#symbols.set(`${name}.${field.name}`, file);
    for (const oneof of message.oneofDecl) this.#symbols.set(`${name}.${oneof.name}`, file);
    for (const nested of message.nestedType) this.#addMessage(file, `${name}.`, nested);
    for (const each of message.enumType) this.#addEnum(file, `${name}.`, each);
    for (const extension of message.extension) this.#addExtension(file, `${name}.`, extension);
  }

  /** Values of an enum are named beside it, not inside. */
  #addEnum(file: string, scope: string, each: EnumDescriptorProto): void {
    this.#symbols.set(`${scope}${each.name}`, file);
    for (const value of each.value) this.#symbols.set(`${scope}${value.name}`, file);
  }

  #addExtension(file: string, scope: string, extension: FieldDescriptorProto): void {
    this.#symbols.set(`${scope}${extension.name}`, file);
    this.#extensionsOf(extension.extendee.replace(/^\./, "")).set(extension.number, file);
  }

  #extensionsOf(type: string): Map<number, string> {
    let numbers = this.#extensions.get(type);
    if (numbers === undefined) {
      numbers = new Map();
      this.#extensions.set(type, numbers);
    }
    return numbers;
  }
}
