// One page in a tab of its own: how long until it can be read, and what the tab then holds. `node tab.mjs ADDRESS TOKEN SELECTOR [SCROLLS]`
// prints `{opened_ms, tab_mb, scrolled_mb, lines}`. Measures; judges nothing. Memory is the proportional share (PSS) of the tab's process.

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { chromium } from "playwright-core";

const [address, token, selector, scrolls = "0"] = process.argv.slice(2);
const CHROMIUM = process.env.CHROMIUM ?? execFileSync("sh", ["-c", "command -v chromium"]).toString().trim();

const browser = await chromium.launch({
  executablePath: CHROMIUM,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
const context = await browser.newContext({ extraHTTPHeaders: { authorization: `Bearer ${token}` } });
const page = await context.newPage();

// The process of the tab is the renderer that has appeared with it; what it holds is said by the kernel.
const cdp = await browser.newBrowserCDPSession();
const memory = async () => {
  const { processInfo } = await cdp.send("SystemInfo.getProcessInfo");
  const shares = processInfo
    .filter(({ type }) => type === "renderer")
    .map(({ id }) => Number(readFileSync(`/proc/${id}/smaps_rollup`, "utf8").match(/^Pss:\s+(\d+)/m)[1]));
  return Math.max(...shares) / 1000;
};

// The first start of a browser's parts is not the page's doing.
await page.goto(new URL("/login", address).href);
const begun = performance.now();
await page.goto(address, { waitUntil: "commit" });
await page.waitForSelector(selector, { state: "visible" });
const opened_ms = performance.now() - begun;
await page.waitForLoadState("load");
const tab_mb = await memory();
for (let turn = 0; turn < Number(scrolls); turn++) {
  const known = await page.evaluate(() => document.querySelector("#log").lastElementChild.dataset.line);
  await page.evaluate(() => { const log = document.querySelector("#log"); log.scrollTop = log.scrollHeight; document.querySelector("[data-more=after]")?.scrollIntoView(); });
  await page.waitForFunction(before => document.querySelector("#log").lastElementChild.dataset.line !== before, known, { timeout: 10_000 }).catch(() => {});
}
const scrolled_mb = await memory();
const lines = await page.evaluate(() => document.querySelectorAll("#log .ln").length);
console.log(JSON.stringify({ opened_ms, tab_mb, scrolled_mb, lines }));
await browser.close();
