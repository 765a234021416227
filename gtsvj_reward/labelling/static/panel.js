// The side of the page that says what the labels have bought.
import { element } from "./page.js";

const SVG = "http://www.w3.org/2000/svg";

function section(title, ...children) {
  return element("section", {}, element("h3", {}, title), ...children);
}

function percent(share) {
  return `${Math.round(100 * share)}%`;
}

function figure(text, small) {
  return element("p", { class: "figure" }, text, element("small", {}, small));
}

function muted(text) {
  return element("p", { class: "muted" }, text);
}

function drawn(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  if (text !== undefined) made.textContent = text;
  return made;
}

// Accuracy against the labels that the judge knew.
function plot(points) {
  const [width, height, left, bottom] = [280, 74, 30, 14];
  const svg = drawn("svg", {
    viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `Accuracy from ${points[0][0]} to ${points.at(-1)[0]} labels`,
  });
  const most = Math.max(...points.map((point) => point[0]), 1);
  const x = (labels) => left + ((width - left - 6) * labels) / most;
  const low = Math.min(0.4, ...points.map((point) => point[1]));
  const y = (share) => 6 + ((height - bottom - 8) * (1 - share)) / (1 - low);
  for (const share of [0.5, 1]) {
    svg.append(drawn("line", { x1: left, x2: width - 6, y1: y(share), y2: y(share), class: "axis" }));
    svg.append(drawn("text", { x: 0, y: y(share) + 3, class: "tick" }, percent(share)));
  }
  svg.append(drawn("text", { x: left, y: height - 1, class: "tick" }, "0"));
  svg.append(drawn("text", { x: width - 6, y: height - 1, "text-anchor": "end", class: "tick" }, `${most} labels`));
  const path = points.map(([labels, share]) => `${x(labels)},${y(share)}`).join(" ");
  svg.append(drawn("polyline", { points: path, class: "line" }));
  return svg;
}

function accuracy(progress) {
  const found = progress.accuracy;
  if (!found) {
    return section("Accuracy on random pairs",
      muted("Shown after the judge's first prediction for a random pair."));
  }
  const parts = [
    figure(percent(found.share), `${percent(found.low)} to ${percent(found.high)}`),
    muted(`the last ${found.pairs} random pairs, each predicted before its label was known`),
  ];
  if (progress.curve.length > 1) parts.push(plot(progress.curve));
  const point = progress.last_point;
  if (point) {
    const most = point.at_most === null ? "" : `, at most ${point.at_most}`;
    parts.push(muted(point.cost === null
      ? "No significant rise in accuracy."
      : `The last point took about ${point.cost} labels${most}.`));
  }
  return section("Accuracy on random pairs", ...parts);
}

function ratings(progress) {
  const found = progress.rating_error;
  if (!found) {
    return section("Predicted ratings",
      muted("Shown after the judge's first prediction for a random clip."));
  }
  const half = found.half === null ? "" : ` ± ${found.half.toFixed(2)}`;
  return section("Predicted ratings",
    figure(found.error.toFixed(2), `points off${half}`),
    muted(`${found.ratings} ratings of random clips, each predicted before it was known; ` +
      `always saying the mean so far is ${found.of_the_mean.toFixed(2)} off`));
}

function judge(state, clips, button) {
  if (state.read < clips) {
    return section("Judge", element("p", {}, `reading clips: ${state.read} of ${clips}`),
      muted("Until then pairs are random."), ...failures(state));
  }
  const fit = state.fit;
  const said = fit.labels
    ? `fitted to ${fit.labels} answers in ${fit.seconds.toFixed(1)} s`
    : "not fitted to answers yet";
  return section("Judge", element("p", {}, state.busy && state.busy !== "writing tables" ? `${state.busy} …` : said),
    ...failures(state), button);
}

function failures(state) {
  return Object.entries(state.failures).map(([what, why]) =>
    element("p", { class: "failure", role: "alert" }, `${what} failed: ${why}`));
}

function agreement(found) {
  const shared = Object.entries(found).filter(([, each]) => each.units > 0);
  if (!shared.length) return [];
  return [section("Agreement of raters", ...shared.map(([name, each]) => {
    const alpha = each.alpha === null ? "not defined" : each.alpha.toFixed(2);
    const conflicts = each.conflicts === 1 ? "1 conflict" : `${each.conflicts} conflicts`;
    return element("div", {}, name ? element("p", {}, name) : "",
      figure(alpha, "Krippendorff's alpha"),
      muted(`${each.units} labelled by several, ${conflicts}`));
  }))];
}

function thumbs(title, clips) {
  if (!clips.length) return [];
  const row = element("div", { class: "thumbs" });
  for (const clip of clips) {
    const video = element("video", { src: `/video/${clip.number}`, preload: "metadata", playsinline: true });
    video.muted = true;
    video.loop = true;
    const play = () => (video.paused ? video.play().catch(() => {}) : video.pause());
    row.append(element("button", { type: "button", title: clip.name, "aria-label": `Play ${clip.name}`, onclick: play }, video));
  }
  return [section(title, row)];
}

export class Panel {
  constructor(root, clips, save) {
    this.root = root;
    this.clips = clips;
    // One button for all drawings: it says how far a checkpoint is while the numbers change.
    this.button = element("button", { type: "button", id: "checkpoint", onclick: save }, "Write checkpoint");
    this.shown = "";
    this.extremes = "";
    this.numbers = element("div", {});
    this.videos = element("div", {});
    for (const part of [this.numbers, this.videos]) {
      part.className = "parts";
      root.append(part);
    }
  }

  show(progress, kind) {
    const text = JSON.stringify(progress);
    if (text === this.shown) return;
    this.shown = text;
    const focused = document.activeElement === this.button;
    const parts = [];
    if (progress.judge) {
      parts.push(kind === "compare" ? accuracy(progress) : ratings(progress));
      parts.push(judge(progress.judge, this.clips, this.button));
    }
    parts.push(...agreement(progress.agreement));
    const names = Object.entries(progress.raters);
    if (!names.length) parts.push(section("Answers", muted("None yet. They are stored under your name.")));
    if (names.length) {
      const rows = names.flatMap(([name, count]) => [element("dt", { title: name }, name), element("dd", {}, count)]);
      parts.push(section("Answers", element("dl", { class: "raters" }, ...rows)));
    }
    const skips = Object.entries(progress.skips).map(([reason, count]) => `${count} ${reason}`);
    if (skips.length) parts.push(section("Skipped", muted(skips.join(", "))));
    this.numbers.replaceChildren(...parts);
    if (focused) this.button.focus();
    const state = progress.judge;
    const extremes = state ? JSON.stringify([state.best, state.worst]) : "";
    if (extremes !== this.extremes) {
      this.extremes = extremes;
      this.videos.replaceChildren(
        ...thumbs("Best clips now", state.best), ...thumbs("Worst clips now", state.worst));
    }
  }
}
