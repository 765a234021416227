// One or two videos that play as one: a common loop, common steps, a common speed.

const APART = 0.08; // seconds between two videos from which one is moved

export class Players {
  constructor(where) {
    this.where = where; // shows the place in the clip
    this.videos = [];
    this.rates = [];
    this.paused = false;
    this.speed = 1;
    this.tick = this.tick.bind(this);
    requestAnimationFrame(this.tick);
  }

  show(videos, rates) {
    this.videos = videos;
    this.rates = rates;
    this.paused = false;
    for (const video of videos) {
      video.muted = true;
      video.playsInline = true;
      video.preload = "auto";
      video.disablePictureInPicture = true;
      video.defaultPlaybackRate = this.speed;
      video.playbackRate = this.speed;
    }
    // Together, when all have something to show; a broken one is not waited for.
    const ready = videos.map((video) => new Promise((done) => {
      video.addEventListener("canplay", done, { once: true });
      video.addEventListener("error", done, { once: true });
    }));
    Promise.all(ready).then(() => {
      if (this.videos === videos && !this.paused) this.play();
    });
  }

  // The first one that can play leads; the longest decides when all begin again.
  playable() {
    return this.videos.filter((video) => !video.error && video.readyState > 0);
  }

  longest() {
    return this.playable().reduce((a, b) => (a && a.duration >= b.duration ? a : b), null);
  }

  play() {
    this.paused = false;
    const longest = this.longest();
    if (longest && longest.ended) this.seek(0);
    for (const video of this.playable()) if (!video.ended) video.play().catch(() => {});
  }

  pause() {
    this.paused = true;
    for (const video of this.videos) video.pause();
  }

  toggle() {
    if (this.paused) this.play();
    else this.pause();
  }

  seek(time) {
    for (const video of this.playable()) video.currentTime = Math.min(time, video.duration);
  }

  step(frames) {
    this.pause();
    const longest = this.longest();
    if (!longest) return;
    const rate = this.rates[this.videos.indexOf(longest)];
    if (!rate) return;
    const last = longest.duration - 0.5 / rate;
    const frame = Math.floor(longest.currentTime * rate + 0.01) + frames;
    this.seek(Math.min(Math.max((frame + 0.5) / rate, 0), last));
  }

  setSpeed(speed) {
    this.speed = speed;
    for (const video of this.videos) {
      video.defaultPlaybackRate = speed;
      video.playbackRate = speed;
    }
  }

  tick() {
    const longest = this.longest();
    if (longest) {
      if (!this.paused) {
        if (longest.ended) {
          this.play();
        } else {
          for (const video of this.playable()) {
            const target = Math.min(longest.currentTime, video.duration);
            if (video !== longest && Math.abs(video.currentTime - target) > APART) {
              video.currentTime = target;
            }
          }
        }
      }
      const text = `${longest.currentTime.toFixed(2)} / ${longest.duration.toFixed(2)} s`;
      if (this.where.textContent !== text) this.where.textContent = text;
    }
    requestAnimationFrame(this.tick);
  }
}
