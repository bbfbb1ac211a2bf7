// What the board computes by itself, without a browser: node --test
import assert from "node:assert/strict";
import test from "node:test";

import { begin, check, gaze, hint, left, letter, percent, place, right, told, unpack } from "../../selfie_lite/inspector/board.js";
import { still } from "../../selfie_lite/inspector/still.js";

const puzzle = { id: "one", side: 4, masked: [2, 5, 7], order: [1, 0, 2] };
const models = [{ name: "additive", right_once: 1 }, { name: "mask_token", right_once: 3 }];

test("letters go on after Z, shares are whole percents", () => {
  assert.deepEqual([0, 25, 26, 47].map(letter), ["A", "Z", "A1", "V1"]);
  assert.equal(percent(0.246), "25%");
});

test("a candidate lies at one place, and a place has one candidate", () => {
  let play = place(place(begin(puzzle), 2, 1), 5, 1);
  assert.deepEqual(play.placed, { 5: 1 });
  play = place(play, 5, 0);
  assert.deepEqual(play.placed, { 5: 0 });
  assert.deepEqual(left(puzzle, play), [2, 7]);
  assert.deepEqual(place(play, 5, null).placed, {});
});

test("a round is counted once, when all is placed, and not after a look", () => {
  let play = place(place(begin(puzzle), 2, 0), 5, 2);
  assert.equal(check(puzzle, play, models), play, "one is still to place");
  play = check(puzzle, place(play, 7, 1), models);
  assert.equal(right(puzzle, play), 1);
  assert.deepEqual(play.score, { rounds: 1, patches: 3, you: 1, models: { additive: 1, mask_token: 3 } });
  assert.equal(check(puzzle, play, models), play);
  assert.equal(place(play, 2, 1), play, "checked: nothing moves");
  assert.match(told(play), /So far, 3 patches in 1 round: you 1, additive 1, mask_token 3, guessing 1\./);
  const next = begin({ ...puzzle, id: "two" }, play.score);
  assert.deepEqual([next.placed, next.checked, next.score.rounds], [{}, false, 1]);
  let peeked = { ...next, peeked: true };
  for (const [at, k] of [[2, 0], [5, 1], [7, 2]]) peeked = place(peeked, at, k);
  peeked = check(puzzle, peeked, models);
  assert.equal(peeked.score.rounds, 1);
  assert.match(told(peeked), /does not count/);
});

test("the line says what to do next", () => {
  const none = new Set(), play = begin(puzzle);
  assert.match(hint(puzzle, play, "play", none), /^3 patches .* Put them back/);
  assert.match(hint({ ...puzzle, masked: [2] }, play, "play", none), /^One patch .* is cut out/);
  assert.match(hint(puzzle, place(play, 2, 0), "play", none), /^2 patches to go/);
  assert.match(hint(puzzle, { ...play, placed: { 2: 0, 5: 1, 7: 2 } }, "play", none), /Check/);
  assert.match(hint(puzzle, { ...play, placed: { 2: 0, 5: 1, 7: 2 }, checked: true }, "play", none), /^All right!/);
  const seen = ["hole", "candidate", "puzzle", "attention"].reduce((lines, name, i, all) =>
    [...lines, hint(puzzle, play, "guess", new Set(all.slice(0, i)))], []);
  assert.equal(new Set(seen).size, 4);
});

test("attention is unpacked as it was packed", () => {
  const numbers = Uint16Array.from({ length: 2 * 2 * 3 * 4 }, (_, i) => 1000 * i);
  const weights = Buffer.from(numbers.buffer).toString("base64");
  const { of, rows } = unpack({ shape: [2, 2, 3, 4], weights });
  assert.equal(rows, 3);
  assert.deepEqual(of(1, 0, 2).map((share) => Math.round(65535 * share)), [32000, 33000, 34000, 35000]);
  assert.equal(unpack(null), null);
  assert.match(gaze([0, 1, 3, 4], [0.1, 0.4, 0.2, 0.1], "u0"), /^u0 looks most at locations 1 \(40%\), 3 \(20%\), 0 \(10%\); an even share is 20%\.$/);
  assert.match(gaze([3], [0.5], "u0"), /at location 3 \(50%\)/);
});

test("a page without a kernel answers from what it has", () => {
  const puzzles = [0, 1].map((n) => ({ puzzle: { id: n }, models: { a: { name: "a", n }, b: { name: "b", n } }, code: `code ${n}` }));
  const model = still({ puzzles, chosen: { model: "a", compare: null, image_number: 0 }, lists: {}, shown: {}, played: {} });
  const heard = [];
  model.on("change:puzzle", () => heard.push(model.get("puzzle").id));
  assert.deepEqual([model.get("first").name, model.get("second"), model.get("lines")], ["a", {}, "code 0"]);
  model.send({ do: ["next_puzzle"] });
  model.send({ set: ["compare", "b"] });
  assert.deepEqual([model.get("puzzle").id, model.get("first").n, model.get("second").name], [1, 1, "b"]);
  model.send({ set: ["model", "b"] });
  model.send({ do: ["next_puzzle"] });
  assert.deepEqual([model.get("first").name, model.get("puzzle").id, heard.length], ["b", 0, 4]);
});
