// Small helpers that build the page. Text is always text: nothing here parses HTML.

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== null && value !== false) made.setAttribute(key, String(value));
  }
  made.append(...children.map((child) => child ?? ""));
  return made;
}

export function key(text) {
  return element("kbd", {}, text);
}

export function byId(id) {
  return document.getElementById(id);
}

// A clip of a task: its video, what it is called, and what is shown if it cannot be played.
export function clipFigure(clip, label, onBroken) {
  const video = element("video", { src: `/video/${clip.number}`, "aria-label": `${label} clip` });
  const figure = element("figure", { class: "clip" }, video, element("figcaption", {}, label));
  video.addEventListener("error", () => {
    figure.append(element("div", { class: "unplayed", role: "alert" },
      element("p", {}, "This video cannot be played."),
      element("p", {}, clip.name),
      element("p", {}, "Skip it: s")));
    onBroken(clip.name);
  });
  return { figure, video };
}

export function compareButtons(answer) {
  const button = (text, digit, label) => element("button", {
    type: "button", "data-label": label, "aria-keyshortcuts": digit, onclick: () => answer(label),
  }, key(digit), text);
  return [
    button("Left is better", "1", 1),
    button("The same", "0", 0),
    button("Right is better", "2", -1),
  ];
}

// One row for each aspect; the current one takes the keys.
export class Scales {
  constructor(aspects, done) {
    this.aspects = aspects;
    this.done = done;
    this.given = new Map(); // aspect -> 1 to 5, or null for no opinion
    this.rows = aspects.map((aspect, index) => this.row(aspect, index));
    this.mark();
  }

  row(aspect, index) {
    const button = (text, value, name) => element("button", {
      type: "button", class: value === null ? "none" : "", "data-value": value ?? "none",
      "aria-pressed": false, "aria-label": `${aspect}: ${name}`, "aria-keyshortcuts": value ?? 0,
      onclick: () => this.set(index, value),
    }, text);
    const scale = element("div", { class: "scale", role: "group", "aria-label": aspect },
      ...[1, 2, 3, 4, 5].map((value) => button(String(value), value, `${value} of 5`)),
      button("no opinion", null, "no opinion"));
    return element("div", { class: "aspect" }, element("span", { class: "name" }, aspect), scale);
  }

  current() {
    return this.aspects.findIndex((aspect) => !this.given.has(aspect));
  }

  set(index, value) {
    if (index < 0) return;
    this.given.set(this.aspects[index], value);
    this.mark();
    if (this.current() < 0) {
      const scores = [...this.given].filter(([, score]) => score !== null);
      this.done(Object.fromEntries(scores));
    }
  }

  // Takes the last rating of this clip back; false if there is none.
  back() {
    const last = [...this.given.keys()].pop();
    if (last === undefined) return false;
    this.given.delete(last);
    this.mark();
    return true;
  }

  mark() {
    const current = this.current();
    this.rows.forEach((row, index) => {
      row.classList.toggle("current", index === current);
      const given = this.given.get(this.aspects[index]);
      for (const button of row.querySelectorAll("button")) {
        const value = button.dataset.value === "none" ? null : Number(button.dataset.value);
        button.setAttribute("aria-pressed", String(given === value));
      }
    });
  }
}
