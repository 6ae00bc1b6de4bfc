import test from "ava";
import { proxyFor } from "../src/connection/proxy.ts";

const P = "http://proxy.example.org:3128";

test("which proxy is used for an address", (t) => {
  const cases: readonly [address: string, environment: Record<string, string>, proxy: string | undefined][] = [
    ["https://a.example.org", { HTTPS_PROXY: P }, `${P}/`],
    ["https://a.example.org", { https_proxy: P, HTTPS_PROXY: "http://other" }, `${P}/`],
    ["https://a.example.org", { HTTPS_PROXY: "proxy.example.org:3128" }, `${P}/`],
    ["https://a.example.org", { HTTP_PROXY: P }, undefined],
    ["http://a.example.org", { HTTP_PROXY: P }, `${P}/`],
    ["http://a.example.org", { HTTPS_PROXY: P }, undefined],
    ["https://a.example.org", { HTTPS_PROXY: "" }, undefined],
    ["https://a.example.org", {}, undefined],
    ["http://127.0.0.1:8080", { HTTP_PROXY: P }, undefined],
    ["http://localhost:8080", { HTTP_PROXY: P }, undefined],
    ["http://[::1]:8080", { HTTP_PROXY: P }, undefined],
  ];
  for (const [address, environment, proxy] of cases)
    t.is(proxyFor(new URL(address), environment)?.href, proxy, `${address} ${JSON.stringify(environment)}`);
});

test("NO_PROXY", (t) => {
  const bypassed: readonly [address: string, noProxy: string, isBypassed: boolean][] = [
    ["https://a.example.org", "*", true],
    ["https://a.example.org", "example.org", true],
    ["https://a.example.org", ".example.org", true],
    ["https://a.example.org", "*.example.org", true],
    ["https://A.example.org", "a.EXAMPLE.org", true],
    ["https://anexample.org", "example.org", false],
    ["https://a.example.org", "b.example.org, a.example.org", true],
    ["https://a.example.org:8443", "a.example.org:8443", true],
    ["https://a.example.org:8443", "a.example.org:443", false],
    ["https://a.example.org", "a.example.org:443", true],
    ["https://10.1.2.3", "10.0.0.0/8", true],
    ["https://11.1.2.3", "10.0.0.0/8", false],
    ["https://10.1.2.3", "10.1.2.3", true],
    ["https://10.1.2.3", "10.0.0.0/99", false],
    ["https://[fd00::1]", "fd00::/8", true],
    ["https://[fd00::1]:8443", "[fd00::1]:8443", true],
    ["https://[fd00::1]", "10.0.0.0/8", false],
    ["https://a.example.org", ",, ", false],
  ];
  for (const [address, noProxy, isBypassed] of bypassed) {
    const proxy = proxyFor(new URL(address), { HTTPS_PROXY: P, NO_PROXY: noProxy });
    t.is(proxy === undefined, isBypassed, `${address} ${noProxy}`);
  }
});
