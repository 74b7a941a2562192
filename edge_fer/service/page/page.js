// Draws what the stream of events tells. No library, no build step.

const WINDOW_MS = 60_000; // of a timeline
const STAY_MS = 4_000; // a face that has left
const CROP_MS = 1_000;
const QUIET_MS = 3_000; // between two announcements

const $ = (id) => document.getElementById(id);
const stages = new Map(); // by camera
const faces = new Map(); // by track
let status = null; // the last state that we were told
let wanted = null; // what the switch was set to, until the service says so too
let announced = 0;

const tint = (expression) => `var(--${expression})`;
const percent = (share) => `${Math.round(share * 100)} %`;

// The live view

function stageOf(camera) {
  let stage = stages.get(camera);
  if (!stage) {
    const root = $("stage-template").content.cloneNode(true).firstElementChild;
    stage = { root, view: root.querySelector(".view"), boxes: root.querySelector(".boxes"), veil: root.querySelector(".veil"), rate: root.querySelector(".rate"), box: new Map(), size: "" };
    root.querySelector(".name").textContent = camera;
    stages.set(camera, stage);
    $("stages").append(root);
    veil();
  }
  return stage;
}

function drawFrame(frame) {
  const stage = stageOf(frame.camera);
  const size = `${frame.width} / ${frame.height}`;
  if (stage.size !== size) {
    stage.size = size;
    veil();
    stage.view.style.aspectRatio = size;
    stage.view.style.maxWidth = `calc(72vh * ${frame.width / frame.height})`;
  }
  const latency = frame.since_capture_ms ?? sum(frame.latency_ms);
  stage.rate.textContent = `${frame.width} × ${frame.height} · ${frame.fps.toFixed(1)} fps · ${latency.toFixed(0)} ms`;
  stage.fps = frame.fps;
  stage.latency = latency;
  stage.told = performance.now();
}

const sum = (stages) => Object.values(stages).reduce((total, ms) => total + ms, 0);

function drawBox(event) {
  const stage = stageOf(event.camera);
  let box = stage.box.get(event.track);
  if (!box) {
    box = document.createElement("div");
    box.className = "box";
    box.append(document.createElement("span"));
    stage.box.set(event.track, box);
    stage.boxes.append(box);
  }
  const [x, y, w, h] = event.box;
  Object.assign(box.style, { left: `${x * 100}%`, top: `${y * 100}%`, width: `${w * 100}%`, height: `${h * 100}%` });
  box.style.setProperty("--tint", tint(event.expression));
  box.classList.toggle("unsure", event.uncertain !== null);
  box.classList.toggle("low", y < 0.09);
  box.classList.toggle("right", x > 0.6);
  box.firstChild.textContent = `${event.track} · ${event.expression} ${percent(event.confidence)}`;
}

function removeBox(event) {
  const stage = stages.get(event.camera);
  stage?.box.get(event.track)?.remove();
  stage?.box.delete(event.track);
}

// A stage says why it shows nothing.
function veil() {
  const state = $("state").dataset.state;
  const said = { paused: "Paused: the camera is closed.", pausing: "The camera is being closed.", waiting: "Waiting for the camera.", starting: "Starting.", offline: "Nothing is heard from the device.", stopped: "It has stopped." }[state] ?? "";
  for (const [camera, stage] of stages) {
    stage.veil.textContent = said || (stage.size ? "" : "Nothing has come from this camera yet.");
    const shows = Boolean(status?.video) && !["paused", "pausing", "offline", "stopped"].includes(state);
    const video = stage.view.querySelector("img");
    if (shows && !video) {
      const image = new Image();
      image.alt = `Live picture of ${camera}`;
      image.onerror = () => image.remove(); // the next status tries again
      image.src = `/stream.mjpg?camera=${encodeURIComponent(camera)}`;
      stage.view.prepend(image);
    } else if (!shows && video) {
      video.src = ""; // an image that is only taken away goes on loading
      video.remove();
    }
  }
}

// Faces

function faceOf(event) {
  let face = faces.get(event.track);
  if (!face) {
    const root = $("face-template").content.cloneNode(true).firstElementChild;
    face = { root, samples: [], cropped: 0, bars: new Map(), canvas: root.querySelector("canvas") };
    for (const part of ["h3", ".expression", ".detail", ".confidence", ".bars", ".crop"]) face[part] = root.querySelector(part);
    for (const name of Object.keys(event.probabilities)) {
      const row = document.createElement("li");
      const bar = document.createElement("b");
      const groove = document.createElement("i");
      row.style.setProperty("--tint", tint(name));
      row.append(document.createTextNode(name), groove);
      groove.append(bar);
      face.bars.set(name, { row, bar });
      face[".bars"].append(row);
    }
    root.style.order = event.track;
    faces.set(event.track, face);
    $("faces").append(root);
  }
  return face;
}

function drawFace(event) {
  const face = faceOf(event);
  const now = performance.now();
  if (face.expression !== event.expression) announce(`Face ${event.track}: ${event.expression}`);
  face.h3.textContent = stages.size > 1 ? `Face ${event.track} · ${event.camera}` : `Face ${event.track}`;
  face.expression = event.expression;
  face.camera = event.camera;
  face.goneAt = null;
  face.root.classList.remove("gone");
  face.root.style.setProperty("--tint", tint(event.expression));
  face[".expression"].textContent = event.expression;
  face[".confidence"].textContent = percent(event.confidence);
  const size = `${event.quality.size_px} px`;
  face[".detail"].textContent = event.uncertain ? `unsure: ${event.uncertain} · ${size}` : `for ${duration(event.stable_ms)} · ${size}`;
  for (const [name, { row, bar }] of face.bars) {
    bar.style.transform = `scaleX(${event.probabilities[name] ?? 0})`;
    row.classList.toggle("top", name === event.expression);
  }
  face.samples.push([now, event.expression, event.confidence, event.uncertain !== null]);
  while (face.samples.length && face.samples[0][0] < now - WINDOW_MS) face.samples.shift();
  if (status?.video && now - face.cropped > CROP_MS) {
    face.cropped = now;
    face[".crop"].hidden = false;
    face[".crop"].firstElementChild.src = `/api/v1/faces/${event.track}/crop.png?${event.seq}`;
  }
}

function duration(ms) {
  return ms < 10_000 ? `${(ms / 1000).toFixed(1)} s` : ms < 120_000 ? `${Math.round(ms / 1000)} s` : `${Math.round(ms / 60_000)} min`;
}

// The area of a timeline is the confidence, its color the expression; faint where the answer is unsure.
function drawTimeline(face, now) {
  const canvas = face.canvas;
  const scale = window.devicePixelRatio || 1;
  const width = Math.round(canvas.clientWidth * scale);
  const height = Math.round(56 * scale);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const pen = canvas.getContext("2d");
  const styles = getComputedStyle(document.documentElement);
  pen.clearRect(0, 0, width, height);
  const x = (time) => width * (1 - (now - time) / WINDOW_MS);
  face.samples.forEach(([time, expression, confidence, unsure], place) => {
    const next = face.samples[place + 1]?.[0] ?? Math.min(now, time + 300);
    const end = next - time > 1500 ? time + 300 : next;
    pen.globalAlpha = unsure ? 0.45 : 1;
    pen.fillStyle = styles.getPropertyValue(`--${expression}`);
    pen.fillRect(x(time), height * (1 - confidence), x(end) - x(time) + 0.6, height * confidence);
  });
  canvas.setAttribute("aria-label", spoken(face));
}

function spoken(face) {
  const run = face.samples.map((sample) => sample[1]).filter((name, place, all) => name !== all[place - 1]);
  return `The last minute: ${run.slice(-6).join(", then ") || "nothing yet"}.`;
}

function announce(text) {
  const now = performance.now();
  if (now - announced > QUIET_MS) {
    announced = now;
    $("announcer").textContent = text;
  }
}

function endFace(track) {
  const face = faces.get(track);
  if (face && !face.goneAt) {
    face.goneAt = performance.now();
    face.root.classList.add("gone");
    face[".detail"].textContent = "has left";
  }
}

function endAll() {
  for (const track of faces.keys()) endFace(track);
  for (const stage of stages.values()) {
    stage.boxes.replaceChildren();
    stage.box.clear();
  }
}

// Health

function drawStatus(told) {
  status = told;
  document.title = `${told.device} · edge-fer`;
  $("device").textContent = told.device;
  $("model").textContent = `edge-fer ${told.version} · model ${told.model.name || "unknown"}`;
  for (const camera of told.cameras) stageOf(camera.name);
  if (!told.cameras.length && !stages.size) stageOf("no camera yet");
  else if (told.cameras.length && stages.has("no camera yet")) {
    stages.get("no camera yet").root.remove();
    stages.delete("no camera yet");
  }
  showState(told.state);
  notice(told.reason || told.effort);
  if (wanted === null || wanted === told.enabled) {
    wanted = null;
    showSwitch(told.enabled);
  }
  if (!told.enabled) endAll();
  drawTiles(told);
}

function showState(state) {
  if ($("state").dataset.state !== state) {
    $("state").dataset.state = state;
    $("state-text").textContent = state;
  }
  $("switch").disabled = state === "offline" || state === "stopped";
  veil();
}

function notice(said) {
  const text = said && said[0].toUpperCase() + said.slice(1);
  $("notice").hidden = !text;
  if ($("notice").textContent !== text) $("notice").textContent = text;
}

function drawTiles(told) {
  const tiles = [];
  const running = told.state === "recognizing";
  const fps = told.cameras.reduce((total, camera) => total + camera.fps, 0);
  tiles.push(["frames per second", fps.toFixed(1), "", running ? "" : "warn"]);
  const last = told.cameras.find((camera) => camera.seq !== null);
  if (last && running) {
    const stages = sum(last.latency_ms);
    tiles.push(last.since_capture_ms === null ? ["for a frame", stages.toFixed(0), "ms"] : ["from capture to result", last.since_capture_ms.toFixed(0), "ms"]);
  }
  const { temperature_c: heat, throttled, rss_mb: memory, load } = told.board;
  if (heat !== null) tiles.push(["temperature", heat.toFixed(0), "°C", heat >= 80 ? "bad" : heat >= 70 ? "warn" : ""]);
  if (throttled !== null) {
    const current = throttled.filter((one) => !one.endsWith("since boot"));
    tiles.push(["power and speed", current[0] ?? throttled[0] ?? "full", "", current.length ? "bad" : throttled.length ? "warn" : "good"]);
  }
  tiles.push(["memory", memory.toFixed(0), "MB"], ["load", load.toFixed(2), ""], ["running for", uptime(told.uptime_s), ""]);
  const dropped = told.cameras.reduce((total, camera) => total + camera.dropped.late + camera.dropped.damaged, 0);
  const lost = told.cameras.reduce((total, camera) => total + camera.lost, 0);
  tiles.push(["frames left out", dropped.toLocaleString("en"), ""]);
  if (lost) tiles.push(["times a camera was lost", lost, "", "warn"]);
  for (const sink of told.sinks) tiles.push([sink.name, sink.reached ? "reached" : "away", sink.dropped ? `${sink.dropped} dropped` : "", sink.reached ? "good" : "bad"]);
  $("tiles").replaceChildren(...tiles.map(tile));
}

function tile([name, value, unit, mood]) {
  const root = document.createElement("div");
  const term = document.createElement("dt");
  const says = document.createElement("dd");
  const small = document.createElement("small");
  term.textContent = name;
  small.textContent = unit ? ` ${unit}` : "";
  says.append(String(value), small);
  root.append(term, says);
  root.className = `${mood ?? ""} ${/^\d/.test(value) ? "" : "word"}`.trim();
  return root;
}

function uptime(seconds) {
  const minutes = Math.floor(seconds / 60);
  if (minutes < 1) return `${Math.floor(seconds)} s`;
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`;
}

// The switch

function showSwitch(on) {
  $("switch").setAttribute("aria-checked", String(on));
  $("switch-text").textContent = on ? "Camera on" : "Camera off";
}

async function flip() {
  if ($("switch").disabled) return;
  wanted = $("switch").getAttribute("aria-checked") !== "true";
  showSwitch(wanted);
  try {
    const answer = await fetch("/api/v1/enabled", { method: "PUT", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ enabled: wanted }) });
    if (answer.status === 401) location.assign("/login");
    else if (!answer.ok) throw new Error(await answer.text());
    setTimeout(() => { wanted = null; }, 5_000);
  } catch (error) {
    showSwitch(!wanted);
    wanted = null;
    notice(`The camera was not switched: ${error.message}`);
  }
}

$("switch").addEventListener("click", flip);
document.addEventListener("keydown", (event) => {
  if (event.key === "p" && !event.ctrlKey && !event.metaKey && !event.altKey && !event.repeat) flip();
});

// The stream

function listen() {
  const stream = new EventSource("/api/v1/events");
  stream.addEventListener("status", (message) => drawStatus({ ...status, ...JSON.parse(message.data) }));
  stream.addEventListener("frame", (message) => drawFrame(JSON.parse(message.data)));
  stream.addEventListener("expression", (message) => {
    const event = JSON.parse(message.data);
    if (event.phase === "end") {
      removeBox(event);
      endFace(event.track);
    } else {
      drawBox(event);
      drawFace(event);
    }
  });
  stream.addEventListener("error", () => {
    endAll();
    showState(status?.state === "stopped" ? "stopped" : "offline");
    if (stream.readyState === EventSource.CLOSED) {
      // The server has refused: the session is over, or too many watch.
      stream.close();
      fetch("/api/v1/enabled").then((answer) => (answer.status === 401 ? location.assign("/login") : null), () => null);
      setTimeout(listen, 5_000);
    }
  });
}

function tick() {
  const now = performance.now();
  for (const [track, face] of faces) {
    if (face.goneAt && now - face.goneAt > STAY_MS) {
      face.root.remove();
      faces.delete(track);
    } else if (!face.goneAt) {
      drawTimeline(face, now);
    }
  }
  $("nobody").hidden = faces.size > 0;
  $("nobody").textContent = status && !status.enabled ? "The camera is off: nobody is looked at." : "No face is in view.";
}

setInterval(tick, 250);
listen();
