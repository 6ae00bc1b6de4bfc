/**
 * How many files this process may have open at once, as the system has it now; undefined where there is no limit.
 * Node.js raises it to what is allowed.
 */
export function fileLimit(): number | undefined {
  // @types/node does not know the property yet.
  const report = process.report as NodeJS.ProcessReport & { excludeNetwork: boolean };
  const before = report.excludeNetwork;
  // Else the report asks for the names of addresses, which takes seconds without a name server.
  report.excludeNetwork = true;
  try {
    const { userLimits } = report.getReport() as { userLimits?: { open_files?: { soft?: number | "unlimited" } } };
    const soft = userLimits?.open_files?.soft;
    return typeof soft === "number" ? soft : undefined;
  } finally {
    report.excludeNetwork = before;
  }
}
