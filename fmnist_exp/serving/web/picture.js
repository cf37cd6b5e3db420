"use strict";
// From pixels to what the model was trained on. Grey pictures here are {width, height, data: Float32Array in 0…255}.

const SIDE = 28;
const FAINT = 25;  // grey levels; what differs less from the background is background

// RGBA, as a canvas gives it, to grey on a dark background.
function toGrey({width, height, data}) {
  const grey = new Float32Array(width * height);
  for (let i = 0; i < grey.length; i++) {
    grey[i] = 0.299 * data[4 * i] + 0.587 * data[4 * i + 1] + 0.114 * data[4 * i + 2];
  }
  let ground = median(border({width, height, data: grey}));
  if (ground > 127) {
    ground = 255 - ground;
    for (let i = 0; i < grey.length; i++) grey[i] = 255 - grey[i];
  }
  for (let i = 0; i < grey.length; i++) grey[i] = Math.max(0, grey[i] - ground) * 255 / (255 - ground);
  return {width, height, data: grey};
}

function border({width, height, data}) {
  const values = [];
  for (let x = 0; x < width; x++) values.push(data[x], data[(height - 1) * width + x]);
  for (let y = 0; y < height; y++) values.push(data[y * width], data[y * width + width - 1]);
  return values;
}

function median(values) {
  return values.sort((a, b) => a - b)[values.length >> 1];
}

// The smallest box around what is not background; null where there is nothing.
function box({width, height, data}) {
  let left = width, top = height, right = -1, bottom = -1;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (data[y * width + x] <= FAINT) continue;
      left = Math.min(left, x); right = Math.max(right, x);
      top = Math.min(top, y); bottom = y;
    }
  }
  return right < 0 ? null : {left, top, width: right - left + 1, height: bottom - top + 1};
}

// How much of each source pixel falls into each of `n` equal parts of the stretch from `start`.
function shares(start, length, n) {
  return Array.from({length: n}, (_, i) => {
    const from = start + i * length / n, to = start + (i + 1) * length / n, parts = [];
    for (let p = Math.floor(from); p < Math.min(Math.ceil(to), start + length); p++) {
      parts.push([p, (Math.min(p + 1, to) - Math.max(p, from)) * n / length]);
    }
    return parts;
  });
}

// RGBA to rows of 28 × 28 whole numbers: the longer side of the item fills the picture. Null where there is nothing.
function toModel(rgba) {
  const grey = toGrey(rgba), item = box(grey);
  if (!item) return null;
  const longest = Math.max(item.width, item.height);
  const width = Math.max(1, Math.round(SIDE * item.width / longest));
  const height = Math.max(1, Math.round(SIDE * item.height / longest));
  const left = (SIDE - width) >> 1, top = (SIDE - height) >> 1;
  const columns = shares(item.left, item.width, width), lines = shares(item.top, item.height, height);
  const rows = Array.from({length: SIDE}, () => new Array(SIDE).fill(0));
  lines.forEach((line, y) => columns.forEach((column, x) => {
    let sum = 0;
    for (const [py, partY] of line) for (const [px, partX] of column) {
      sum += grey.data[py * grey.width + px] * partX * partY;
    }
    rows[top + y][left + x] = Math.min(255, Math.round(sum));
  }));
  return rows;
}
