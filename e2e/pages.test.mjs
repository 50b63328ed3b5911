// Andon's pages as a person uses them: the real binary, a real browser, a real service under load. One story, told in steps that build on
// each other; each step is a sentence one can disagree with.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import net from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";

const ANDON = resolve(process.env.ANDON ?? "../target/release/andon");
const CHROMIUM = process.env.CHROMIUM ?? execFileSync("sh", ["-c", "command -v chromium"]).toString().trim();
const PATIENCE = 60_000;

const SERVICE = (version, broken) => `
import sys, http.server, hashlib
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        cookie = self.headers.get("cookie", "")
        unlucky = ${broken} and self.path != "/healthz" and hashlib.md5(cookie.encode()).digest()[0] < 128
        body = b"${version}"
        self.send_response(500 if unlucky else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
`;

const DEFINITION = `
version: 1
pipeline:
  jobs:
    unit:
      run: |
        echo '<testsuite><testcase classname="shop" name="adds &lt;b&gt;up&lt;/b&gt;"/></testsuite>' > unit.xml
      reports: { junit: unit.xml }
    package: { needs: [unit], run: "mkdir dist && cp app.py dist/", artifact: dist }
services:
  web: { command: [python3, app.py, $PORT], health: /healthz, replicas: 2 }
environments:
  staging: { like: production, replicas: 1, release: all-at-once }
  production: { release: careful }
releases:
  careful:
    canary: [ { weight: 30, for: 60s } ]
    analysis: { errors: { worse_by: 1% } }
`;

let room, server, browser, page, url, routerPort, token;
const problems = [];

const freePort = () =>
  new Promise((done) => {
    const probe = net.createServer().listen(0, "127.0.0.1", () => {
      const { port } = probe.address();
      probe.close(() => done(port));
    });
  });

const git = (...args) =>
  execFileSync("git", ["-c", "user.name=Ann", "-c", "user.email=ann@example.com", ...args], {
    cwd: join(room, "repo"),
    stdio: ["ignore", "pipe", "pipe"],
  }).toString();

const api = async (method, path, body) => {
  const answer = await fetch(url + path, {
    method,
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    body: body && JSON.stringify(body),
  });
  assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${await answer.clone().text()}`);
  return answer.json();
};

const until = async (what, look) => {
  const end = Date.now() + PATIENCE;
  for (;;) {
    const seen = await look();
    if (seen) return seen;
    assert.ok(Date.now() < end, `never seen: ${what}`);
    await new Promise((next) => setTimeout(next, 50));
  }
};

const propose = (message, files) => {
  for (const [name, text] of Object.entries(files)) writeFileSync(join(room, "repo", name), text);
  git("add", "-A");
  git("commit", "-q", "-m", message);
  const out = execFileSync("sh", ["-c", "git push andon HEAD:refs/for/main 2>&1"], { cwd: join(room, "repo") }).toString();
  return Number(out.match(/changes\/(\d+)/)[1]);
};

// People who come again and again with their cookies, over connections that stay open.
const visitors = (host, people) => {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 8 });
  const cookies = Array.from({ length: people }, () => undefined);
  const counts = { requests: 0, errors: 0 };
  let going = true;
  const one = (who) =>
    new Promise((done) => {
      const headers = { host, ...(cookies[who] && { cookie: cookies[who] }) };
      http
        .get({ port: routerPort, host: "127.0.0.1", path: "/", headers, agent }, (answer) => {
          const set = answer.headers["set-cookie"]?.[0]?.split(";")[0];
          if (set) cookies[who] = set;
          counts.requests += 1;
          if (answer.statusCode >= 500) counts.errors += 1;
          answer.resume().on("end", done);
        })
        .on("error", done);
    });
  const walk = async (from) => {
    for (let who = from; going; who = (who + 8) % people) {
      await one(who);
      await new Promise((next) => setTimeout(next, 15));
    }
  };
  const walks = Array.from({ length: 8 }, (_, from) => walk(from));
  return { counts, stop: async () => ((going = false), await Promise.all(walks), agent.destroy()) };
};

// The wall while users are being moved: the README's picture.
const picture = async (name) => {
  const wall = await page.context().newPage();
  await wall.goto(`${url}/shop`);
  await wall.getByText("→").first().waitFor();
  const bytes = await wall.screenshot({ clip: { x: 0, y: 0, width: 1280, height: 860 } });
  if (process.env.PICTURE) writeFileSync(resolve(`../docs/images/${name}.png`), bytes);
  await wall.close();
};

before(async () => {
  room = mkdtempSync(join(tmpdir(), "andon-pages-"));
  mkdirSync(join(room, "repo"));
  const port = await freePort();
  routerPort = await freePort();
  url = `http://127.0.0.1:${port}`;
  server = spawn(ANDON, ["serve", "--listen", `127.0.0.1:${port}`, "--router", `127.0.0.1:${routerPort}`, "--data", join(room, "data")]);
  let said = "";
  server.stdout.on("data", (text) => (said += text));
  const link = await until("the owner link", () => said.match(/http\S+once=\S+/)?.[0]);
  browser = await chromium.launch({
    executablePath: CHROMIUM,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
  const context = await browser.newContext({ viewport: { width: 1280, height: 860 } });
  page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  page.on("pageerror", (error) => problems.push(`script: ${error.message}`));
  page.on("console", (line) => line.type() === "error" && problems.push(`console: ${line.text()}`));
  await page.goto(link);
});

after(async () => {
  await browser?.close();
  server?.kill("SIGKILL");
  // Services outlive their server on purpose.
  for (const instance of readdirSync(join(room, "data/instances/shop"), { withFileTypes: true })) {
    try {
      const state = JSON.parse(readFileSync(join(room, "data/instances/shop", instance.name, "state.json")));
      for (const who of [state.shim, state.main]) if (who) process.kill(who.pid, "SIGKILL");
    } catch {
      // It is gone already.
    }
  }
  rmSync(room, { recursive: true, force: true });
});

test("the owner link opens once and makes this browser the owner's", async () => {
  const link = page.url();
  await page.getByRole("button", { name: "Come in" }).click();
  await page.waitForURL((to) => !to.pathname.startsWith("/enter"));
  const again = await browser.newPage();
  await again.goto(link);
  await again.getByRole("button", { name: "Come in" }).click();
  await again.getByText("used already").first().waitFor();
  await again.close();
});

test("a token made on the account page opens git", async () => {
  await page.goto(`${url}/account`);
  await page.getByLabel("What it is for").fill("test");
  await page.getByLabel("May at most").selectOption("owner");
  await page.getByRole("button", { name: "Make a token" }).click();
  token = (await page.locator("#fresh").innerText()).match(/andon_[0-9a-f]+/)[0];
  await api("POST", "/api/v1/projects", { name: "shop" });
  git("init", "-q", "-b", "main");
  git("remote", "add", "andon", url.replace("http://", `http://me:${token}@`) + "/shop.git");
});

test("the wall follows a first push to production without being loaded again", async () => {
  await page.goto(`${url}/shop`);
  await page.evaluate(() => (window.stayed = true));
  propose("Open the shop", { "andon.yaml": DEFINITION, "app.py": SERVICE("v1", "False") });
  const cell = page.locator("main").getByText(git("rev-parse", "HEAD").slice(0, 7));
  await cell.first().waitFor();
  await page.getByText("everyone has it").first().waitFor();
  assert.equal(await page.evaluate(() => window.stayed), true);
});

test("a release that hurts users is taken back while its page is looked at", async () => {
  const crowd = visitors("web.production.shop.localhost", 600);
  await until("some visits", () => crowd.counts.requests > 1500);
  const change = propose("A cheaper cart", { "app.py": SERVICE("v2", "True") });
  const release = await until("the release in production", async () => {
    const { rows } = await api("GET", "/api/v1/shop/releases");
    return rows.find((row) => row.environment === "production" && row.from && row.state === "under_way");
  });
  await page.goto(`${url}/shop/releases/${release.number}`);
  await page.evaluate(() => (window.stayed = true));
  await page.getByText("30 %").first().waitFor();
  await picture("wall");
  await page.bringToFront();
  await page.locator("#steps").getByText("taken back").waitFor();
  assert.equal(await page.evaluate(() => window.stayed), true, "the page was loaded again");
  const { row, says } = await api("GET", `/api/v1/shop/releases/${release.number}`);
  assert.equal(row.state, "taken_back");
  assert.equal(row.weight_bp, 0);
  console.log(`  #${change} ${row.id} was taken back: ${says}; ${crowd.counts.errors} of ${crowd.counts.requests} requests failed`);
  const before = crowd.counts.errors;
  const seen = crowd.counts.requests;
  await until("visits after it", () => crowd.counts.requests > seen + 400);
  await crowd.stop();
  assert.ok(crowd.counts.errors - before < 20, "users still see errors");
});

test("the andon's room tells why, and a person starts the line again", async () => {
  await page.goto(`${url}/shop`);
  await page.getByRole("link", { name: /Line stopped/ }).click();
  await page.getByText("A cheaper cart").first().waitFor();
  await api("POST", "/api/v1/shop/andons/1/acknowledge", { why: "" });
  await page.getByText("owner", { exact: true }).first().waitFor();
  await api("POST", "/api/v1/shop/andons/1/release", { why: "the change is taken back" });
  await page.getByRole("button", { name: "Pull the cord" }).first().waitFor();
});

test("the cord is pulled by a click, and every open page turns red", async () => {
  const other = await page.context().newPage();
  await other.goto(`${url}/shop/flow`);
  await page.goto(`${url}/shop/queue`);
  await page.getByRole("button", { name: "Pull the cord" }).first().click();
  await page.getByLabel("What is wrong").fill("the total is <b>wrong</b>");
  await page.locator("#pull").getByRole("button", { name: "Pull the cord" }).click();
  await page.getByText("Line stopped").first().waitFor();
  // A hidden tab catches up when it is looked at.
  await other.bringToFront();
  await other.getByText("Line stopped").first().waitFor();
  assert.equal(await other.locator("#cord").getAttribute("data-state"), "red");
  assert.equal(await page.locator("main b", { hasText: "wrong" }).count(), 0, "a reason became markup");
  await other.close();
  await page.bringToFront();
  await api("POST", "/api/v1/shop/andons/2/release", { why: "seen" });
});

test("a flag is made and opened to a group on its page", async () => {
  await api("POST", "/api/v1/shop/flags/new-cart/create", {});
  await api("POST", "/api/v1/shop/flags/new-cart/open-to", { group: "group=employees" });
  await page.goto(`${url}/shop/flags`);
  await page.getByText("new-cart").first().waitFor();
  await page.getByText(/employees/).first().waitFor();
});

test("every page can be read without script, on a phone, in the dark, and never scrolls sideways", async () => {
  const context = await browser.newContext({
    viewport: { width: 360, height: 740 },
    colorScheme: "dark",
    javaScriptEnabled: false,
    storageState: await page.context().storageState(),
  });
  const phone = await context.newPage();
  const paths = ["", "/queue", "/changes/1", "/changes/2", "/runs/1", "/environments", "/environments/production", "/releases", "/releases/4", "/flags", "/andons", "/andons/1", "/flow"];
  for (const path of paths) {
    const answer = await phone.goto(`${url}/shop${path}`);
    assert.equal(answer.status(), 200, path);
    assert.ok((await phone.locator("h1").innerText()).length > 3, path);
    const wide = await phone.locator("html").evaluate((html) => html.scrollWidth > html.clientWidth).catch(() => false);
    assert.equal(wide, false, `${path} scrolls sideways`);
  }
  await context.close();
});

test("pages are reached by keyboard alone", async () => {
  await page.goto(`${url}/shop`);
  await page.keyboard.press("g");
  await page.keyboard.press("q");
  await page.waitForURL(/\/queue$/);
  await page.keyboard.press("/");
  assert.equal(await page.evaluate(() => document.activeElement.id), "jump");
});

test("no page caused an error in the browser", () => {
  assert.deepEqual(problems, []);
});
