// A report: theme, order and choice of cards, clips that play in view, trajectories that follow.
"use strict";

const root = document.documentElement;
const themeButton = document.getElementById("theme");
const dark = matchMedia("(prefers-color-scheme: dark)");

function setTheme(name) {
  root.dataset.theme = name;
  themeButton.textContent = name === "dark" ? "Light" : "Dark";
}

setTheme(dark.matches ? "dark" : "light");
dark.addEventListener("change", () => setTheme(dark.matches ? "dark" : "light"));
themeButton.addEventListener("click", () => setTheme(root.dataset.theme === "dark" ? "light" : "dark"));

// Order and choice. A card says its values in data-values, in the order of the options of #key.
const clips = document.getElementById("clips");
const tools = document.getElementById("tools");

function arrange() {
  const { key, up, search, group, curve, untrained } = tools.elements;
  const value = (card) => JSON.parse(card.dataset.values)[key.selectedIndex];
  const order = (a, b) => (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0);
  const cards = [...clips.children].sort((a, b) => (up.checked ? order(a, b) : order(b, a)));
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const card of cards) {
    const text = card.dataset.text.toLowerCase();
    card.hidden = !(words.every((word) => text.includes(word))
      && (!group || group.value === "" || card.dataset.group === group.value)
      && (!untrained || !untrained.checked || card.dataset.untrained !== undefined));
    if (!card.hidden) shown += 1;
    if (curve) {
      for (const drawn of card.querySelectorAll("[data-curve]")) drawn.hidden = drawn.dataset.curve !== curve.value;
    }
  }
  if (cards.some((card, place) => card !== clips.children[place])) {
    const playing = [...clips.querySelectorAll("video")].filter((video) => !video.paused);
    clips.append(...cards); // which stops the clips that are moved
    for (const video of playing) video.play().catch(() => {});
  }
  tools.elements.found.value = `${shown} of ${cards.length} cards`;
}

if (tools) {
  tools.addEventListener("input", arrange);
  tools.addEventListener("submit", (event) => event.preventDefault());
  arrange();
}

// Clips play while they are in view, unless the visitor paused them or wants no motion.
const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    target.dataset.inView = isIntersecting;
    if (!isIntersecting) target.pause();
    else if (!still && target.dataset.paused === undefined) target.play().catch(() => {});
  }
}, { threshold: 0.3 });

function toggle(video) {
  if (video.paused) video.play().catch(() => {});
  else video.pause();
}

for (const video of document.querySelectorAll("video")) {
  video.muted = true;
  video.controls = false; // without this script they have them
  video.tabIndex = 0;
  video.addEventListener("click", () => toggle(video));
  video.addEventListener("keydown", (event) => {
    if (event.key !== " " && event.key !== "Enter") return;
    event.preventDefault();
    toggle(video);
  });
  video.addEventListener("pause", () => { if (video.dataset.inView === "true") video.dataset.paused = ""; });
  video.addEventListener("play", () => { delete video.dataset.paused; });
  video.title = "Click to stop and go on";
  seen.observe(video);
}

// The line of a trajectory stands where its clip is; a click in the trajectory moves the clip.
class Follower {
  constructor(card, video) {
    this.video = video;
    this.now = card.querySelector(".now");
    this.drawn = [...card.querySelectorAll(".trajectory")];
    for (const svg of this.drawn) {
      svg.addEventListener("pointerdown", (event) => { svg.setPointerCapture(event.pointerId); this.seek(svg, event); });
      svg.addEventListener("pointermove", (event) => { if (event.buttons) this.seek(svg, event); });
    }
  }

  seek(svg, event) {
    const box = svg.getBoundingClientRect();
    const [left, right] = [Number(svg.dataset.left), Number(svg.dataset.right)];
    const place = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    const share = Math.min(1, Math.max(0, (place - left) / (right - left)));
    this.video.pause();
    this.video.currentTime = Math.min(share * Number(svg.dataset.seconds), this.video.duration - 0.01);
    this.follow();
  }

  follow() {
    const time = this.video.currentTime;
    for (const svg of this.drawn) {
      const [left, right] = [Number(svg.dataset.left), Number(svg.dataset.right)];
      const share = Math.min(1, time / Number(svg.dataset.seconds));
      const head = svg.querySelector(".head");
      const x = left + share * (right - left);
      head.setAttribute("x1", x);
      head.setAttribute("x2", x);
      svg.classList.add("moving");
      if (!svg.closest("[hidden]")) this.say(svg, time);
    }
  }

  say(svg, time) {
    const steps = svg.querySelectorAll(".dot title");
    let text = "";
    for (const step of steps) {
      text = step.textContent;
      if (time < Number(text.split(" ")[2])) break;
    }
    this.now.textContent = text;
  }
}

const followers = [];
for (const card of document.querySelectorAll(".clip")) {
  const video = card.querySelector("video");
  if (video && card.querySelector(".trajectory")) followers.push(new Follower(card, video));
}

function tick() {
  for (const follower of followers) {
    if (!follower.video.paused || follower.video.seeking) follower.follow();
  }
  requestAnimationFrame(tick);
}
if (followers.length) requestAnimationFrame(tick);
