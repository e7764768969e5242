// Live pages: fetches the page it is on again and puts in what has changed. Without it everything is there,
// as of the moment it was asked for.
"use strict";

const EVERY_MS = 2000;
const RETRY_MAX_MS = 10000;
const ANSWER_MS = 5000;
const button = document.getElementById("live");
let live = true;
let timer;
let waitMs = EVERY_MS;
let answeredAt = new Date();

function show(state, text) {
  button.dataset.state = state;
  button.textContent = text;
  button.setAttribute("aria-pressed", String(live));
}

// What is shown while nothing new is known is old, and must look like it.
function known(isKnown) {
  const banner = document.getElementById("away");
  document.body.toggleAttribute("data-away", !isKnown);
  if (!isKnown) {
    const time = answeredAt.toISOString().slice(11, 19);
    banner.textContent = `No answer: this is what was known at ${time} UTC. Trying again.`;
  }
  banner.hidden = isKnown;
}

// A part that is being used stays as it is until it is left alone.
function inUse(part) {
  const selection = document.getSelection();
  return (!selection.isCollapsed && selection.containsNode(part, true)) || part.contains(document.activeElement);
}

function putIn(page) {
  const parts = [...document.querySelectorAll("[data-live]")];
  const next = parts.map((part) => page.getElementById(part.id));
  const sameShape =
    document.body.dataset.status === page.body.dataset.status &&
    next.every(Boolean) &&
    page.querySelectorAll("[data-live]").length === parts.length;
  if (!sameShape) {
    document.getElementById("main").replaceWith(page.getElementById("main"));
    document.body.dataset.status = page.body.dataset.status;
    document.title = page.title;
    const foot = page.getElementById("freshness");
    if (foot) document.getElementById("freshness").replaceWith(foot);
    return;
  }
  parts.forEach((part, index) => {
    if (inUse(part) || part.isEqualNode(next[index])) return;
    for (const open of part.querySelectorAll("details[open]")) {
      const same = next[index].querySelector(`#${CSS.escape(open.id)}`);
      if (same) same.open = true;
    }
    const scrolled = [...part.querySelectorAll(".scroll")].map((box) => box.scrollLeft);
    part.replaceWith(next[index]);
    next[index].querySelectorAll(".scroll").forEach((box, i) => (box.scrollLeft = scrolled[i] ?? 0));
  });
}

async function update() {
  try {
    const answer = await fetch(location.href, {
      headers: { Accept: "text/html" },
      signal: AbortSignal.timeout(ANSWER_MS),
    });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (!page.body.dataset.status) throw new Error("not a page of the console");
    // A failure is shown beside what was last known, not in its place.
    if (answer.status >= 500) throw new Error(`status ${answer.status}`);
    putIn(page);
    waitMs = EVERY_MS;
    answeredAt = new Date();
    known(true);
    if (live) show("live", "Live");
  } catch {
    waitMs = Math.min(waitMs * 2, RETRY_MAX_MS);
    known(false);
    if (live) show("away", "No answer, trying again");
  }
  next();
}

function next() {
  clearTimeout(timer);
  if (live && !document.hidden) timer = setTimeout(update, waitMs);
}

button.hidden = false;
show("live", "Live");
button.addEventListener("click", () => {
  live = !live;
  if (live) {
    show("live", "Live");
    update();
  } else {
    clearTimeout(timer);
    show("paused", "Paused");
  }
});
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : live && update()));
next();
