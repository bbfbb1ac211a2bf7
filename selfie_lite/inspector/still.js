// A model without a kernel: puzzles that were computed before, in turn. It answers as the one of Jupyter does.
export function still(data) {
  const heard = {}, values = { ...data, message: "", turn: 0, second: {} };
  const model = {
    still: true,
    get: (name) => values[name],
    set: (name, value) => {
      values[name] = value;
      for (const act of heard[`change:${name}`] ?? []) act();
    },
    save_changes: () => {},
    on: (name, act) => (heard[name] ??= []).push(act),
    off: () => {},
    send: ({ set, do: done }) => {
      const chosen = { ...values.chosen };
      if (done) chosen.image_number = (chosen.image_number + 1) % data.puzzles.length;
      else chosen[set[0]] = set[1];
      show(chosen);
    },
  };
  const show = (chosen) => {
    const { puzzle, models, code } = data.puzzles[chosen.image_number];
    const second = models[chosen.compare] ?? {};
    for (const [name, value] of Object.entries({ chosen, lines: code, first: models[chosen.model], second, puzzle })) model.set(name, value);
    model.set("turn", values.turn + 1);
  };
  show(data.chosen);
  return model;
}
