// What the page does by itself: it enters by the key in its address, and keeps lists fresh.
"use strict";

const LIVE_MS = 5000;

function enterByKey() {
  const form = document.getElementById("by-key");
  const key = new URLSearchParams(location.hash.slice(1)).get("key");
  if (!form || !key) return;
  history.replaceState(null, "", location.pathname);
  form.elements.key.value = key;
  form.submit();
}

// The token of a link stands in its fragment, which only a script can read.
async function openLink(fields) {
  const place = document.getElementById("by-link");
  const token = location.hash.slice(1);
  if (!place || !token) return;
  const answer = await fetch("/flag", { method: "POST", body: new URLSearchParams({ token, ...fields }) });
  const part = new DOMParser().parseFromString(await answer.text(), "text/html").body;
  place.replaceChildren(...part.childNodes);
  document.getElementById("by-link-form")?.addEventListener("submit", (event) => {
    event.preventDefault();
    openLink({ act: "acknowledge", name: event.target.elements.name.value });
  });
}

function keepLive() {
  const part = document.querySelector("[data-live]");
  if (!part) return;
  let busy = false;
  setInterval(async () => {
    if (busy || document.hidden) return;
    busy = true;
    try {
      await refresh(part);
    } catch {
      say(part, "No answer from Firstread: this page is not up to date.");
    } finally {
      busy = false;
    }
  }, LIVE_MS);
}

async function refresh(part) {
  const form = document.getElementById(part.dataset.form || "");
  const options = { headers: { "X-Firstread-Live": "1" }, cache: "no-store", redirect: "error" };
  if (form) {
    const fields = new URLSearchParams(JSON.parse(part.dataset.asked));
    options.method = "POST";
    options.body = fields;
  }
  const answer = await fetch(part.dataset.live, options);
  if (answer.status === 401 || answer.status === 403) {
    say(part, "Your session has ended. Open this page again.");
    return;
  }
  if (!answer.ok) throw new Error(String(answer.status));
  const html = await answer.text();
  say(part, "");
  if (html === part.dataset.last || isInUse(part)) return;
  part.dataset.last = html;
  replace(part, html);
}

// What somebody types in or has opened stays as it is.
function isInUse(part) {
  const focus = document.activeElement;
  return part.contains(focus) && /^(INPUT|TEXTAREA|SELECT)$/.test(focus.tagName);
}

function replace(part, html) {
  const focus = document.activeElement;
  const place = part.contains(focus) ? focus.getAttribute("href") : null;
  const open = new Set([...part.querySelectorAll("details[open][id]")].map((one) => one.id));
  const kept = [...part.querySelectorAll("[data-keep][id]")];
  const fresh = new DOMParser().parseFromString(html, "text/html").body;
  for (const one of kept) fresh.querySelector(`#${CSS.escape(one.id)}`)?.replaceWith(one);
  for (const one of fresh.querySelectorAll("details[id]")) if (open.has(one.id)) one.open = true;
  part.replaceChildren(...fresh.childNodes);
  if (place) [...part.querySelectorAll("a[href]")].find((a) => a.getAttribute("href") === place)?.focus();
}

function say(part, text) {
  let line = document.getElementById("stale");
  if (!line) {
    line = document.createElement("p");
    line.id = "stale";
    line.setAttribute("role", "alert");
    part.before(line);
  }
  line.className = text ? "message" : "hidden";
  line.textContent = text;
}

function rememberAsked() {
  for (const part of document.querySelectorAll("[data-form]")) {
    const form = document.getElementById(part.dataset.form);
    const fields = Object.fromEntries(new FormData(form));
    fields.page = part.dataset.page || "1";
    part.dataset.asked = JSON.stringify(fields);
  }
}

rememberAsked();
enterByKey();
openLink({});
addEventListener("hashchange", () => {
  enterByKey();
  openLink({});
});
keepLive();
