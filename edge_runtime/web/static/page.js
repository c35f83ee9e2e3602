// Keeps a page live. Invariant: a page that has not heard from the device for a while says so.
"use strict";

const STALE_MS = 8000; // the device sends a beat every 3 s
const RETRY_MS = 2000;
const FRESH_MS = 60000; // a new flag stays marked for a minute
const body = document.body;
const connection = document.getElementById("connection");
const stale = document.getElementById("stale");
let titleWords = document.title;

let source = null;
let heardAt = null; // performance.now() of the last word from the device
let heardWall = "";
let behind = false; // the device itself cannot read its database
let skewMs = 0; // the device's clock minus the browser's
let shownStudy = document.getElementById("main").innerHTML;
let refreshing = false;
let refreshAgain = false;

function twoDigits(number) {
  return String(number).padStart(2, "0");
}

function clock(date) {
  return [date.getHours(), date.getMinutes(), date.getSeconds()].map(twoDigits).join(":");
}

function showConnection() {
  const late = heardAt === null || performance.now() - heardAt > STALE_MS;
  const live = !late && !behind && source !== null && source.readyState === EventSource.OPEN;
  const state = live ? "live" : heardAt === null ? "connecting" : "lost";
  if (connection.dataset.state === state) return;
  connection.dataset.state = state;
  const words = { live: "Live", connecting: "Not live yet", lost: "Reconnecting: data may be old" };
  document.getElementById("connection-words").textContent = words[state];
  body.classList.toggle("is-stale", state === "lost");
  stale.hidden = state !== "lost";
  if (state === "lost") {
    stale.textContent =
      "Connection to the device lost. This page shows the state of " + heardWall +
      ". New flags may be missing: use the usual worklist.";
  }
  showTitle();
}

function heard() {
  heardAt = performance.now();
  heardWall = clock(new Date());
}

function onBeat(event) {
  const beat = JSON.parse(event.data);
  heard();
  behind = beat.behind_ms > STALE_MS;
  skewMs = beat.now_ms - Date.now();
  showAges();
  showConnection();
  if (body.dataset.study) refreshStudy();
}

function ageWords(ms) {
  const minutes = Math.floor(ms / 60000);
  if (minutes < 1) return "just now";
  if (minutes < 60) return minutes + " min ago";
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return hours + " h " + twoDigits(minutes % 60) + " min ago";
  return "";
}

function showAges() {
  const now = Date.now() + skewMs;
  for (const cell of document.querySelectorAll(".age")) {
    const words = ageWords(now - Number(cell.dataset.receivedMs));
    if (words) cell.textContent = words;
  }
}

function showTitle() {
  const open = document.querySelectorAll("tr.open").length;
  const lost = connection.dataset.state === "lost" ? "(old data) " : "";
  document.title = lost + (open ? "(" + open + ") " : "") + titleWords;
}

function parseRow(html) {
  const template = document.createElement("template");
  template.innerHTML = html.trim(); // rendered and escaped by the device
  return template.content.firstElementChild;
}

function announce(text) {
  const item = document.createElement("span");
  item.textContent = text;
  const announcer = document.getElementById("announcer");
  while (announcer.childElementCount > 4) announcer.firstElementChild.remove();
  announcer.append(item);
}

function placeRow(key, html, rows) {
  const old = document.getElementById("s-" + key);
  const row = parseRow(html);
  const flag = row.dataset.announce;
  const isNew = flag && (!old || old.dataset.announce !== flag);
  if (isNew || (old && old.classList.contains("fresh") && flag)) row.classList.add("fresh");
  const hadFocus = old && old.contains(document.activeElement);
  if (old) old.replaceWith(row);
  else rows.append(row);
  if (hadFocus) (row.querySelector("button") || row.querySelector("a")).focus({ preventScroll: true });
  if (isNew) {
    announce(flag);
    setTimeout(() => document.getElementById("s-" + key)?.classList.remove("fresh"), FRESH_MS);
  }
}

function orderRows(order, rows) {
  const wanted = new Set(order);
  for (const row of [...rows.children]) if (!wanted.has(row.dataset.key)) row.remove();
  order.forEach((key, index) => {
    const row = document.getElementById("s-" + key);
    if (row && rows.children[index] !== row) rows.insertBefore(row, rows.children[index] || null);
  });
}

function onRows(event) {
  const change = JSON.parse(event.data);
  heard();
  if (body.dataset.study) {
    if (change.rows[body.dataset.study]) refreshStudy();
    return;
  }
  const rows = document.getElementById("rows");
  for (const [key, html] of Object.entries(change.rows)) placeRow(key, html, rows);
  orderRows(change.order, rows);
  const summary = document.getElementById("summary");
  if (summary.dataset.html !== change.summary) {
    summary.innerHTML = change.summary;
    summary.dataset.html = change.summary;
  }
  document.getElementById("empty").hidden = change.order.length > 0;
  showAges();
  showConnection();
  showTitle();
}

async function refreshStudy() {
  if (refreshing) {
    refreshAgain = true;
    return;
  }
  refreshing = true;
  try {
    const answer = await fetch(location.pathname, { cache: "no-store" });
    const left = answer.status === 404; // the page then says so, instead of showing what is gone
    if (!answer.ok && !left) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (left) {
      titleWords = page.title;
      showTitle();
    }
    const next = page.getElementById("main");
    const now = document.getElementById("main");
    if (next && next.innerHTML !== shownStudy) {
      shownStudy = next.innerHTML;
      const focused = [...now.querySelectorAll("a, button")].indexOf(document.activeElement);
      now.replaceChildren(...next.childNodes);
      if (focused >= 0) now.querySelectorAll("a, button")[focused]?.focus({ preventScroll: true });
    }
  } catch {
    // The connection's own state tells the reader.
  } finally {
    refreshing = false;
    if (refreshAgain) {
      refreshAgain = false;
      setTimeout(refreshStudy, 250);
    }
  }
}

function connect() {
  const after = encodeURIComponent(body.dataset.after || "");
  source = new EventSource("/events?after=" + after);
  source.addEventListener("beat", onBeat);
  source.addEventListener("snapshot", onRows);
  source.addEventListener("change", onRows);
  source.onerror = () => {
    showConnection();
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, RETRY_MS);
  };
}

async function onSubmit(event) {
  event.preventDefault();
  const form = event.target;
  const button = form.querySelector("button");
  button.disabled = true;
  button.textContent = "Acknowledging…";
  try {
    const answer = await fetch(form.action, {
      method: "POST",
      body: new URLSearchParams(new FormData(form)),
      redirect: "manual",
    });
    if (answer.type !== "opaqueredirect" && !answer.ok) throw new Error();
    if (body.dataset.study) refreshStudy();
  } catch {
    button.disabled = false;
    button.textContent = "Not saved: try again";
  }
}

if (body.dataset.live === "yes") {
  document.addEventListener("submit", onSubmit);
  setInterval(showConnection, 1000);
  connect();
  showTitle();
}
