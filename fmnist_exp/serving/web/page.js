"use strict";
const NAMES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];
const PAPER = "#fff";
const byId = id => document.getElementById(id);
const READ = {willReadFrequently: true};
const paper = byId("paper"), ink = paper.getContext("2d", READ), seen = byId("seen").getContext("2d", READ);
let drawn = false;  // whether the paper shows a drawing (and not a picture, or nothing)
let asked = 0;  // number of the newest question; answers to older ones are dropped

// ---- asking the model

async function ask(rows, truth) {
  const number = ++asked;
  show(rows);
  if (!rows) return tell("nothing yet", "none");
  const start = performance.now();
  try {
    const reply = await fetch("invocations", {
      method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({inputs: [rows]}),
    });
    const answer = await reply.json();
    if (number !== asked) return;
    if (!reply.ok) return tell(answer.message, "bad");
    const row = answer.predictions[0], took = Math.max(1, Math.round(performance.now() - start));
    tell(`${row.name}, ${Math.round(100 * row.probability)}\u00a0%`, "", (truth ? `The test set says: ${truth}. ` : "") + `Answered in ${took} ms.`);
    bars(NAMES.map((_, label) => row[`p${label}`]), row.label);
  } catch {
    if (number === asked) tell("The server does not answer. Is it still running?", "bad");
  }
}

function tell(text, kind, detail = "") {
  byId("answer").textContent = text;
  byId("answer").className = kind;
  byId("detail").textContent = detail;
  if (kind) bars(new Array(NAMES.length).fill(0), -1);
}

function bars(values, best) {
  [...byId("bars").children].forEach((item, label) => {
    item.className = label === best ? "best" : "";
    item.querySelector("i").style.width = `${100 * values[label]}%`;
    item.querySelector("b").textContent = best < 0 ? "–" : `${(100 * values[label]).toFixed(1)} %`;
  });
}

function show(rows) {
  const picture = new ImageData(SIDE, SIDE);
  for (let i = 0; i < SIDE * SIDE; i++) {
    picture.data.fill(rows ? rows[Math.floor(i / SIDE)][i % SIDE] : 0, 4 * i, 4 * i + 3);
    picture.data[4 * i + 3] = 255;
  }
  seen.putImageData(picture, 0, 0);
}

// ---- the paper

function clear(colour = PAPER) {
  ink.fillStyle = colour;
  ink.fillRect(0, 0, paper.width, paper.height);
  drawn = false;
  for (const button of byId("samples").children) button.setAttribute("aria-pressed", "false");
}

function askPaper() {
  byId("empty").hidden = true;
  ask(toModel(ink.getImageData(0, 0, paper.width, paper.height)));
}

const chosen = name => document.querySelector(`input[name=${name}]:checked`).value;

function line(from, to) {
  if (!drawn) { clear(); drawn = true; byId("empty").hidden = true; }
  ink.strokeStyle = chosen("ink");
  ink.lineWidth = Number(chosen("width"));
  ink.lineCap = ink.lineJoin = "round";
  ink.beginPath();
  ink.moveTo(from.x, from.y);
  ink.lineTo(to.x, to.y);
  ink.stroke();
}

function place(event) {
  const area = paper.getBoundingClientRect(), scale = paper.width / area.width;
  return {x: (event.clientX - area.left) * scale, y: (event.clientY - area.top) * scale};
}

let last = null;  // where the pointer was while it is down
paper.addEventListener("pointerdown", event => {
  if (event.button) return;
  paper.setPointerCapture(event.pointerId);
  last = place(event);
  line(last, last);
});
paper.addEventListener("pointermove", event => {
  if (!last) return;
  for (const step of event.getCoalescedEvents?.() ?? [event]) {
    const next = place(step);
    line(last, next);
    last = next;
  }
});
for (const end of ["pointerup", "pointercancel"]) {
  paper.addEventListener(end, () => { if (last) askPaper(); last = null; });
}

const pen = {x: paper.width / 2, y: paper.height / 2, down: false};
const STEPS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
paper.addEventListener("keydown", event => {
  if (event.key === "Delete" || event.key === "Backspace") {
    startAgain();
  } else if (event.key === " ") {
    pen.down = !pen.down;
    if (pen.down) { line(pen, pen); askPaper(); }
  } else if (event.key in STEPS) {
    const before = {...pen}, step = event.shiftKey ? 4 : 20;
    pen.x = Math.min(paper.width, Math.max(0, pen.x + step * STEPS[event.key][0]));
    pen.y = Math.min(paper.height, Math.max(0, pen.y + step * STEPS[event.key][1]));
    if (pen.down) { line(before, pen); askPaper(); }
  } else return;
  event.preventDefault();
  showPen();
});
paper.addEventListener("blur", () => { pen.down = false; byId("pen").hidden = true; });

function showPen() {
  const mark = byId("pen");
  mark.hidden = false;
  mark.className = pen.down ? "down" : "";
  mark.style.left = `${100 * pen.x / paper.width}%`;
  mark.style.top = `${100 * pen.y / paper.height}%`;
}

function startAgain() {
  clear();
  byId("empty").hidden = false;
  pen.down = false;
  ask(null);
}
byId("clear").addEventListener("click", startAgain);

// ---- pictures: chosen, dropped, pasted

async function take(file) {
  let picture;
  try {
    picture = await createImageBitmap(file);
  } catch {
    return tell("This file is not a picture that the browser can read.", "bad");
  }
  clear();
  const scale = Math.min(paper.width / picture.width, paper.height / picture.height);
  const width = Math.max(1, picture.width * scale), height = Math.max(1, picture.height * scale);
  const left = Math.round((paper.width - width) / 2), top = Math.round((paper.height - height) / 2);
  ink.imageSmoothingQuality = "high";
  ink.drawImage(picture, left, top, width, height);
  // the rest of the paper gets the picture's own background, so that its edge is not taken for the item
  const inside = ink.getImageData(left, top, Math.floor(width), Math.floor(height));
  const ground = [0, 1, 2].map(channel => {
    const data = new Float32Array(inside.width * inside.height);
    for (let i = 0; i < data.length; i++) data[i] = inside.data[4 * i + channel];
    return median(border({width: inside.width, height: inside.height, data}));
  });
  clear(`rgb(${ground})`);
  ink.fillStyle = PAPER;  // behind transparent pictures
  ink.fillRect(left, top, Math.floor(width), Math.floor(height));
  ink.drawImage(picture, left, top, width, height);
  askPaper();
}

byId("file").addEventListener("change", event => {
  if (event.target.files[0]) take(event.target.files[0]);
  event.target.value = "";
});
addEventListener("paste", event => {
  const file = [...event.clipboardData.files].find(file => file.type.startsWith("image/"));
  if (file) { event.preventDefault(); take(file); }
});
addEventListener("dragover", event => { event.preventDefault(); document.body.classList.add("dropping"); });
addEventListener("dragleave", event => { if (!event.relatedTarget) document.body.classList.remove("dropping"); });
addEventListener("drop", event => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
});

// ---- test images: the sprite holds rows of ten, one of each class

async function addSamples() {
  const sprite = byId("sprite");
  await sprite.decode();
  for (let i = 0; i < sprite.naturalWidth * sprite.naturalHeight / SIDE ** 2; i++) {
    const button = document.createElement("button"), small = document.createElement("canvas");
    const truth = NAMES[i % NAMES.length], brush = small.getContext("2d", READ);
    small.width = small.height = SIDE;
    brush.drawImage(sprite, -SIDE * (i % NAMES.length), -SIDE * Math.floor(i / NAMES.length));
    button.type = "button";
    button.title = truth;
    button.setAttribute("aria-label", `Test image ${i + 1}: ${truth}`);
    button.setAttribute("aria-pressed", "false");
    button.append(small);
    button.addEventListener("click", () => pick(button, small, truth));
    byId("samples").append(button);
  }
}

function pick(button, small, truth) {
  clear();
  button.setAttribute("aria-pressed", "true");
  byId("empty").hidden = true;
  ink.imageSmoothingEnabled = false;
  ink.drawImage(small, 0, 0, paper.width, paper.height);
  ink.imageSmoothingEnabled = true;
  const {data} = small.getContext("2d").getImageData(0, 0, SIDE, SIDE);
  ask(Array.from({length: SIDE}, (_, y) => Array.from({length: SIDE}, (_, x) => data[4 * (y * SIDE + x)])), truth);
}

// ---- start

for (const name of NAMES) {
  const item = document.createElement("li");
  item.innerHTML = "<span></span><div class=track><i></i></div><b></b>";
  item.firstChild.textContent = name;
  byId("bars").append(item);
}
startAgain();
addSamples();
fetch("health").then(reply => reply.json()).then(health => {
  if (health.model) byId("model").textContent = `Model: ${health.model} ·`;
});
