// The console in a real browser. infra/millrace/tests/it/console.rs starts what it looks at and says where it is:
//
//   MILLRACE_CONSOLE   URL of the query service
//   MILLRACE_GATEWAY   URL of the gateway
//   MILLRACE_POSTED    id of a posted transaction with metadata; MILLRACE_REFUSED of one with a refused record too
//   MILLRACE_CHROMIUM  the browser's executable, /usr/bin/chromium unless given
//   MILLRACE_SCREENSHOTS  a directory for a picture of every page, not made unless given

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const env = process.env;
const console_ = env.MILLRACE_CONSOLE;
const gateway = env.MILLRACE_GATEWAY;
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const ACCOUNT = "browser:alice";
const PAGES = {
  overview: "/",
  account: `/accounts/${encodeURIComponent(ACCOUNT)}`,
  "account-by-day": `/accounts/${encodeURIComponent(ACCOUNT)}?by=day`,
  transaction: `/transactions/${env.MILLRACE_POSTED}`,
  refused: `/transactions/${env.MILLRACE_REFUSED}`,
  search: "/search?q=browser",
  "search-nothing": "/search?q=nobody",
  rejections: "/rejections",
  "rejections-by-reason": "/rejections?reason=id_conflict",
  parked: "/parked",
  "parked-resolved": "/parked?open=false",
};
// Pages about what is not there: the browser itself notes their status.
const MISSING = {
  "unknown-page": "/nothing",
  "unknown-transaction": "/transactions/00000000-0000-4000-8000-000000000000",
  "unknown-account": "/accounts/nobody",
};
const WRONG = { "wrong-id": "/transactions/7", "wrong-parameter": "/parked?open=perhaps" };
const STATUS_NOTE = /status of (404|400)/;

let browser;

before(async () => {
  browser = await chromium.launch({
    executablePath: env.MILLRACE_CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-sync", "--disable-component-update"],
  });
});

after(() => browser.close());

// A page and everything that went wrong on it.
async function open(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, ...options });
  const page = await context.newPage();
  const wrong = [];
  page.on("console", (line) => ["error", "warning"].includes(line.type()) && wrong.push(line.text()));
  page.on("pageerror", (error) => wrong.push(error.message));
  page.on("requestfailed", (request) => wrong.push(`${request.url()}: ${request.failure()?.errorText}`));
  page.on("request", (request) => {
    if (!request.url().startsWith(console_)) wrong.push(`asks elsewhere: ${request.url()}`);
  });
  return { context, page, wrong };
}

async function post(transaction) {
  const answer = await fetch(`${gateway}/v1/transactions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ id: randomUUID(), kind: "card", currency: "EUR", source: "browser", ...transaction }),
  });
  assert.equal(answer.status, 202, await answer.clone().text());
  return answer.json();
}

async function axeFindings(page) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  return violations.map((v) => `${v.id}: ${v.help}: ${v.nodes.map((n) => n.target).join(" ")}`);
}

// What is wider than the window makes the page scroll sideways.
async function overflow(page) {
  return page.evaluate(() => ({
    by: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    who: [...document.querySelectorAll("body *")]
      .filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(".scroll, .dump, .hidden, svg"))
      .map((e) => `${e.tagName}.${e.className}`)
      .slice(0, 5),
  }));
}

// Colours do not change the layout, nor the width the colours: not everything is looked at in every window.
const WINDOWS = [
  { width: 360, colorScheme: "light", findings: true },
  { width: 360, colorScheme: "dark" },
  { width: 768, colorScheme: "light" },
  { width: 1440, colorScheme: "light" },
  { width: 1440, colorScheme: "dark", findings: true },
];

for (const { width, colorScheme, findings } of WINDOWS) {
  test(`every page at ${width} px, ${colorScheme}`, async (t) => {
    const { context, page, wrong } = await open({ colorScheme, viewport: { width, height: 900 } });
    for (const [name, path] of Object.entries({ ...PAGES, ...MISSING, ...WRONG })) {
      await t.test(name, async () => {
        const status = name in MISSING ? 404 : name in WRONG ? 400 : 200;
        wrong.length = 0;
        const answer = await page.goto(console_ + path);
        assert.equal(answer.status(), status);
        assert.ok(answer.headers()["millrace-as-of"], "says as of when it is");
        await page.locator("h1").first().waitFor({ state: "attached" });
        if (env.MILLRACE_SCREENSHOTS) {
          await page.screenshot({ path: `${env.MILLRACE_SCREENSHOTS}/${name}-${width}-${colorScheme}.png`, fullPage: true });
        }
        assert.deepEqual(await overflow(page), { by: 0, who: [] });
        if (findings) assert.deepEqual(await axeFindings(page), []);
        assert.deepEqual(wrong.filter((line) => status === 200 || !STATUS_NOTE.test(line)), []);
      });
    }
    await context.close();
  });
}

test("search leads to accounts and transactions", async () => {
  const { context, page, wrong } = await open();
  await page.goto(console_);
  const find = async (text) => {
    await page.getByRole("searchbox").fill(text);
    await page.getByRole("button", { name: "Find" }).click();
    await page.waitForLoadState();
  };
  await find(ACCOUNT);
  await page.waitForURL(/\/accounts\//);
  assert.equal(await page.locator("h1").textContent(), ACCOUNT);
  await find(` ${env.MILLRACE_POSTED.toUpperCase()} `);
  await page.waitForURL(/\/transactions\//);
  assert.equal(await page.locator("h1").textContent(), env.MILLRACE_POSTED);
  await find("browser:");
  await page.getByRole("link", { name: ACCOUNT, exact: true }).click();
  await page.waitForURL(/\/accounts\//);
  await find("<script>alert(1)</script>");
  assert.match(await page.locator("main").textContent(), /Nothing is found for/);
  assert.deepEqual(wrong, []);
  await context.close();
});

test("every link of every page leads somewhere", async () => {
  const { context, page } = await open();
  const links = new Set();
  for (const path of Object.values(PAGES)) {
    await page.goto(console_ + path);
    for (const href of await page.evaluate(() => [...document.links].map((link) => link.href.split("#")[0]))) {
      links.add(href);
    }
  }
  assert.ok(links.size > 10, `${links.size} links`);
  for (const link of links) {
    const answer = await fetch(link, { headers: { accept: "text/html" } });
    assert.equal(answer.status, 200, link);
  }
  await context.close();
});

test("a balance moves while one looks, and stops when paused", async () => {
  const { context, page, wrong } = await open();
  await page.goto(`${console_}${PAGES.account}?by=transaction`);
  const balance = page.locator("#balances .value").first();
  const newest = page.locator("#entries tbody tr").first();
  const before = await balance.textContent();
  const curve = await page.locator("path.line").getAttribute("d");
  const pay = () => post({ debit_account: ACCOUNT, credit_account: "browser:cafe", amount: 101, occurred_at: new Date().toISOString() });
  await pay();
  await page.waitForFunction((text) => document.querySelector("#balances .value").textContent !== text, before);
  assert.notEqual(await page.locator("path.line").getAttribute("d"), curve);
  assert.match(await newest.textContent(), /−1\.01 EUR/);

  const button = page.getByRole("button", { name: "Live" });
  await button.click();
  assert.equal(await page.locator("#live").textContent(), "Paused");
  const paused = await balance.textContent();
  await pay();
  await new Promise((done) => setTimeout(done, 4500));
  assert.equal(await balance.textContent(), paused);
  await page.locator("#live").click();
  await page.waitForFunction((text) => document.querySelector("#balances .value").textContent !== text, paused);
  assert.deepEqual(wrong, []);
  await context.close();
});

test("a transaction that is not there yet comes by itself", async () => {
  const { context, page, wrong } = await open();
  const id = randomUUID();
  await page.goto(`${console_}/transactions/${id}`);
  assert.match(await page.locator("h1").textContent(), /Not applied/);
  await post({ id, debit_account: ACCOUNT, credit_account: "browser:cafe", amount: 1, occurred_at: "2026-01-31T12:00:00Z" });
  await page.locator(".badge.posted").first().waitFor();
  assert.equal(await page.locator("h1").textContent(), id);
  assert.deepEqual(wrong.filter((line) => !STATUS_NOTE.test(line)), []);
  await context.close();
});

test("what one is reading stays: open details and a selection", async () => {
  const { context, page, wrong } = await open();
  await page.goto(console_ + PAGES.parked);
  await page.locator("summary").first().click();
  await page.getByRole("link", { name: "Overview" }).focus();
  const told = page.locator("#freshness time");
  const first = await told.textContent();
  await page.waitForFunction((text) => document.querySelector("#freshness time").textContent !== text, first);
  assert.equal(await page.locator("details[open]").count(), 1);
  assert.match(await page.locator("details[open] .dump").textContent(), /de ad be ef/);
  assert.deepEqual(wrong, []);
  await context.close();
});

test("when the service goes away the page says so and keeps what it knew", async () => {
  const { context, page } = await open();
  await page.goto(console_ + PAGES.account);
  const balance = await page.locator("#balances .value").first().textContent();
  await context.setOffline(true);
  await page.locator('#live[data-state="away"]').waitFor();
  assert.match(await page.getByRole("alert").textContent(), /what was known at/);
  assert.deepEqual(await axeFindings(page), []);
  assert.equal(await page.locator("#balances .value").first().textContent(), balance);
  await context.setOffline(false);
  await page.locator('#live[data-state="live"]').waitFor();
  assert.equal(await page.locator("#away").isVisible(), false);
  await context.close();
});

test("everything is there without JavaScript", async () => {
  for (const [name, path] of Object.entries(PAGES)) {
    const { context, page, wrong } = await open({ javaScriptEnabled: false });
    const answer = await page.goto(console_ + path);
    assert.equal(answer.status(), 200);
    assert.ok((await page.locator("h1").count()) > 0, name);
    assert.equal(await page.locator("#live").isVisible(), false);
    if (name === "account") assert.equal(await page.locator("path.line").count(), 1);
    if (name === "overview") assert.match(await page.locator("#tiles").textContent(), /Conservation\s*Holds/);
    assert.deepEqual(wrong, []);
    await context.close();
  }
});

test("the keyboard reaches the content first and the focus is seen", async () => {
  const { context, page } = await open();
  await page.goto(console_);
  await page.keyboard.press("Tab");
  const skip = page.getByRole("link", { name: "Skip to the content" });
  assert.ok(await skip.isVisible());
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  await context.close();
});
