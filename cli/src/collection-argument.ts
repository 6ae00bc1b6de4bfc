import { UsageError } from "@strongroom/command-line/errors";
import type { OptionValues } from "@strongroom/command-line/values";
import { OPTIONS } from "./options.ts";

/**
 * The collection that is meant: the argument, else `--collection` or the environment.
 * @throws {UsageError} when there is none, or argument and option differ.
 */
export function requiredCollection(argument: string | undefined, values: OptionValues, example: string): string {
  const option = values.get(OPTIONS.collection);
  if (
    argument !== undefined &&
    option !== undefined &&
    argument !== option &&
    values.source(OPTIONS.collection) === "flag"
  ) {
    throw new UsageError(
      `The argument names the collection "${argument}" and --collection "${option}"; give one of them.`,
    );
  }
  const collection = argument ?? option;
  if (collection === undefined || collection === "")
    throw new UsageError("Which collection?", { hint: `for example: ${example}` });
  return collection;
}
