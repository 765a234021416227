// The page: shows a task, takes the answer, shows the next one.
import { byId, clipFigure, compareButtons, element, key, Scales } from "./page.js";
import { Panel } from "./panel.js";
import { Players } from "./players.js";
import { get, post } from "./server.js";

const NAME = "gtsvj-label-rater";
const THEME = "gtsvj-label-theme";
const EVERY = 4000; // milliseconds between two looks at the judge

const players = new Players(byId("where"));
const state = {
  settings: null, rater: "", task: null, scales: null, busy: false, shown: 0, broken: new Set(),
  panel: null, offset: 0,
};

function offline(text) {
  byId("offline").hidden = text === null;
  byId("offline").textContent = text ?? "";
}

function say(text) {
  byId("said").textContent = text;
}

// ---- who labels, and how the page looks

function askName() {
  const dialog = byId("name-dialog");
  byId("name").value = state.rater;
  if (!dialog.open) dialog.showModal();
  byId("name").select();
}

function setName(name) {
  state.rater = name;
  localStorage.setItem(NAME, name);
  byId("rater").textContent = name;
  byId("rater").setAttribute("aria-label", `Rater ${name}, change`);
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  byId("theme").textContent = theme === "dark" ? "Light" : "Dark";
}

function theme() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  setTheme(localStorage.getItem(THEME) ?? (dark.matches ? "dark" : "light"));
  dark.addEventListener("change", () => {
    if (!localStorage.getItem(THEME)) setTheme(dark.matches ? "dark" : "light");
  });
  byId("theme").addEventListener("click", () => {
    const other = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    localStorage.setItem(THEME, other);
    setTheme(other);
  });
}

// ---- tasks

async function send(action, body) {
  if (state.busy) return;
  state.busy = true;
  document.body.setAttribute("aria-busy", "true");
  try {
    show(await post(action, { rater: state.rater, ...body }, offline));
    look();
  } catch (error) {
    offline(error.message);
  } finally {
    state.busy = false;
    document.body.removeAttribute("aria-busy");
  }
}

function show(desk) {
  const counts = byId("counts");
  counts.replaceChildren(element("b", {}, desk.mine), ` by you, `, element("b", {}, desk.all), " in all");
  if (desk.skipped) counts.append(`, ${desk.skipped} skipped`);
  byId("undo").disabled = !desk.can_undo;
  const task = desk.task;
  for (const id of ["clips", "transport", "answers"]) byId(id).hidden = task === null;
  byId("skip").disabled = task === null;
  byId("done").hidden = task !== null;
  byId("question").parentElement.hidden = task === null;
  if (task !== null && task.ticket !== state.task?.ticket) showTask(task);
  state.task = task;
  say(task === null ? "No tasks left" : `Saved. ${desk.all} answers so far.`);
}

function showTask(task) {
  const { kind, aspects } = state.settings;
  state.broken = new Set();
  state.shown = performance.now();
  byId("prompt").textContent = task.prompt ?? (task.group === "all" ? "" : task.group);
  const labels = kind === "compare" ? ["Left", "Right"] : ["Clip"];
  const made = task.clips.map((clip, index) =>
    clipFigure(clip, labels[index], (name) => state.broken.add(name)));
  for (const video of byId("clips").querySelectorAll("video")) video.removeAttribute("src");
  byId("clips").replaceChildren(...made.map(({ figure }) => figure));
  players.show(made.map(({ video }) => video), task.clips.map((clip) => clip.fps));
  showPlaying();
  const answers = byId("answers");
  answers.className = `answers ${kind}`;
  if (kind === "compare") {
    if (!answers.children.length) answers.replaceChildren(...compareButtons(compare));
  } else {
    state.scales = new Scales(aspects, rate);
    answers.replaceChildren(...state.scales.rows);
  }
}

function seconds() {
  return (performance.now() - state.shown) / 1000;
}

function compare(label) {
  const figures = byId("clips").children;
  if (state.busy || !state.task) return;
  if (label > 0) figures[0].classList.add("chosen");
  if (label < 0) figures[1].classList.add("chosen");
  send("answer", { ticket: state.task.ticket, label, seconds: seconds() });
}

function rate(scores) {
  if (!Object.keys(scores).length) send("skip", { ticket: state.task.ticket, reason: "no opinion" });
  else send("answer", { ticket: state.task.ticket, scores, seconds: seconds() });
}

function undo() {
  if (state.scales?.back()) return;
  if (!byId("undo").disabled) send("undo", {});
}

// ---- skipping

function reasons() {
  const names = state.task.clips.map((clip) => clip.name);
  if (names.length === 1) return [["The clip is broken", "broken", names], ["No opinion", "no opinion", []]];
  return [
    ["The left clip is broken", "broken", [names[0]]],
    ["The right clip is broken", "broken", [names[1]]],
    ["Both are broken", "broken", names],
    ["Too similar to compare", "too alike", []],
    ["No opinion", "no opinion", []],
  ];
}

function skip() {
  if (!state.task || state.busy) return;
  const unplayed = [...state.broken];
  if (unplayed.length) {
    send("skip", { ticket: state.task.ticket, reason: "broken", broken: unplayed });
    return;
  }
  const made = reasons().map(([text, reason, broken], index) => element("button", {
    type: "button", "data-reason": reason,
    onclick: () => {
      byId("skip-dialog").close();
      send("skip", { ticket: state.task.ticket, reason, broken });
    },
  }, key(String(index + 1)), text));
  byId("reasons").replaceChildren(...made);
  byId("skip-dialog").showModal();
}

// ---- the judge

async function look() {
  if (!state.settings || document.hidden) return;
  try {
    state.panel.show(await get("/api/progress"), state.settings.kind);
  } catch {
    // The next request that matters says that the server is away.
  }
}

async function save(event) {
  const button = event.currentTarget;
  button.disabled = true;
  button.textContent = "Writing …";
  try {
    const found = await post("checkpoint", { rater: state.rater }, offline);
    button.textContent = `Written: ${found.labels} answers`;
    say(`Checkpoint written to ${found.folder}`);
  } catch (error) {
    offline(error.message);
    button.textContent = "Write checkpoint";
  } finally {
    button.disabled = false;
  }
}

// ---- the list of clips

async function list() {
  const query = new URLSearchParams({
    search: byId("search").value, order: byId("order").value, offset: String(state.offset),
  });
  const found = await get(`/api/clips?${query}`);
  byId("rows").replaceChildren(...found.rows.map((clip) => element("tr", {},
    element("td", {}, clip.name), element("td", {}, clip.prompt),
    element("td", {}, clip.labels), element("td", {}, clip.score === null ? "" : clip.score.toFixed(2)))));
  const last = found.offset + found.rows.length;
  byId("found").textContent = found.found
    ? `${found.offset + 1} to ${last} of ${found.found} clips` : "No clip with this name or prompt";
  byId("earlier").disabled = found.offset === 0;
  byId("later").disabled = last >= found.found;
  state.step = found.rows.length;
  byId("rows-box").scrollTop = 0;
}

function listFrom(offset) {
  state.offset = Math.max(0, offset);
  list();
}

// ---- keys

const KEYS = [
  ["← →", "one frame back, one forward"],
  ["p or space", "play, pause"],
  ["↑ ↓", "faster, slower"],
  ["s", "skip, with a reason"],
  ["u", "undo the last answer"],
  ["?", "this list"],
];

function showHelp() {
  const own = state.settings.kind === "compare"
    ? [["1", "left is better"], ["2", "right is better"], ["0", "the same"]]
    : [["1 to 5", "rate the marked aspect"], ["0", "no opinion on it"]];
  byId("keys").replaceChildren(...[...own, ...KEYS].flatMap(([keys, text]) =>
    [element("dt", {}, key(keys)), element("dd", {}, text)]));
  byId("help-dialog").showModal();
}

function faster(step) {
  const speeds = [0.5, 1, 2];
  const place = speeds.indexOf(players.speed) + step;
  setSpeed(speeds[Math.min(Math.max(place, 0), 2)]);
}

function setSpeed(speed) {
  players.setSpeed(speed);
  for (const button of document.querySelectorAll("[data-speed]")) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.speed) === speed));
  }
}

function toggle() {
  players.toggle();
  showPlaying();
}

function showPlaying() {
  byId("play").firstChild.textContent = players.paused ? "Play " : "Pause ";
}

function step(frames) {
  players.step(frames);
  showPlaying();
}

function digit(number) {
  if (state.settings.kind === "compare") {
    if (number <= 2) compare([0, 1, -1][number]);
  } else if (number <= 5) {
    state.scales?.set(state.scales.current(), number === 0 ? null : number);
  }
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const skipping = byId("skip-dialog");
  if (skipping.open && /^[1-9]$/.test(event.key)) {
    byId("reasons").children[Number(event.key) - 1]?.click();
    return;
  }
  const inside = event.target.closest("input, select, dialog");
  if (inside || document.querySelector("dialog[open]") || !state.settings) return;
  const onButton = event.target.closest("button");
  const actions = {
    ArrowLeft: () => step(-1), ArrowRight: () => step(1), ArrowUp: () => faster(1),
    ArrowDown: () => faster(-1), p: toggle, s: skip, u: undo, "?": showHelp,
  };
  if (event.key === " " && !onButton) actions[" "] = toggle;
  const action = /^[0-5]$/.test(event.key) ? () => digit(Number(event.key)) : actions[event.key];
  if (!action || (event.repeat && !event.key.startsWith("Arrow"))) return;
  event.preventDefault();
  if (!state.task && event.key !== "u" && event.key !== "?") return;
  action();
}

// ---- start

function connect() {
  document.addEventListener("keydown", pressed);
  document.addEventListener("visibilitychange", look);
  byId("rater").addEventListener("click", askName);
  byId("name-dialog").addEventListener("cancel", (event) => {
    if (!state.rater) event.preventDefault();
  });
  byId("name-dialog").querySelector("form").addEventListener("submit", () => {
    const name = byId("name").value.trim();
    if (name) begin(name);
  });
  byId("play").addEventListener("click", toggle);
  byId("back").addEventListener("click", () => step(-1));
  byId("on").addEventListener("click", () => step(1));
  for (const button of document.querySelectorAll("[data-speed]")) {
    button.addEventListener("click", () => setSpeed(Number(button.dataset.speed)));
  }
  byId("skip").addEventListener("click", skip);
  byId("undo").addEventListener("click", undo);
  byId("skip-cancel").addEventListener("click", () => byId("skip-dialog").close());
  byId("help").addEventListener("click", showHelp);
  byId("help-close").addEventListener("click", () => byId("help-dialog").close());
  byId("list").addEventListener("click", () => {
    byId("list-dialog").showModal();
    listFrom(0);
  });
  byId("list-close").addEventListener("click", () => byId("list-dialog").close());
  byId("search").addEventListener("input", () => listFrom(0));
  byId("order").addEventListener("change", () => listFrom(0));
  byId("later").addEventListener("click", () => listFrom(state.offset + state.step));
  byId("earlier").addEventListener("click", () => listFrom(state.offset - state.step));
  setInterval(look, EVERY);
}

async function begin(name) {
  setName(name);
  state.task = null;
  await send("task", {});
  byId("question").focus();
}

async function start() {
  history.replaceState(null, "", "/"); // the token is in a cookie now
  theme();
  connect();
  state.settings = await get("/api/settings");
  byId("question").textContent = state.settings.question;
  document.title = state.settings.question;
  state.panel = new Panel(byId("panel"), state.settings.clips, save);
  const name = localStorage.getItem(NAME);
  if (name) begin(name);
  else askName();
  look();
}

start().catch((error) => offline(error.message));
