// A single checkpoint, selected by `checkpoints.name` in the address.

sections.checkpoints = (page) => {
  const { data, el, name, state } = page;
  const cell = (list) => list && Object.fromEntries(list.map((value, index) => [data.cell[index], value]));
  const of = new Map(data.checkpoints.map((one) => [one.name, one]));
  const which = el("select", { class: "which", change: () => state.set("checkpoints.name", which.value) },
    data.checkpoints.map((one) => el("option", { value: one.name, dir: "auto" }, one.name)));
  const sheet = el("article", { class: "sheet", "aria-live": "off" });
  let shown = null;
  document.getElementById("checkpoints-place").replaceChildren(
    el("div", { class: "toolbar" }, el("label", {}, el("span", {}, "Checkpoint"), which), el("button", {
      type: "button", class: "link", click: async (event) => {
        state.set("checkpoints.name", which.value);
        said(event.target, await page.copy(state.link("checkpoints")));
      },
    }, "Copy link")),
    sheet);
  state.subscribe((key) => {
    if (key === null || key === "checkpoints.name") show();
  });
  show();

  function show() {
    const one = of.get(state.get("checkpoints.name")) ?? data.checkpoints[0];
    if (one === shown) return;
    shown = one;
    which.value = one.name;
    sheet.replaceChildren(...[
      el("h3", { class: "whole" }, el("bdi", {}, one.name)),
      about(one), curves(one), numbers(one), one.costs.length ? costs(one) : null,
      one.pictures.length ? pictures(one) : null, reproduction(one), citation(one), card(one),
    ].filter(Boolean));
  }

  function about(one) {
    const facts = [["Method", one.methods.join(", ")], ["Network", one.architectures.join(", ")]];
    const loading = one.loading;
    if (loading?.sha256) facts.push(["File", el("code", {}, `SHA-256 ${loading.sha256}`)]);
    if (loading?.total) {
      facts.push(["Loaded", `${loading.matched} of ${loading.total} tensors${loading.share === undefined ? "" : `, ${(100 * loading.share).toFixed(1)} % of the parameters`}; layout ${loading.format}${loading.guessed ? "; network inferred from its shapes" : ""}`]);
    } else if (loading?.format) facts.push(["Loaded", loading.format === "random" ? "nothing: random weights, as requested" : `layout ${loading.format}`]);
    for (const [key, label] of [["missing", "Not in the file"], ["mismatched", "Other shape"], ["unused", "Not used"]]) {
      const found = loading?.[key];
      if (found?.count) facts.push([label, `${found.count} tensors: ${found.names.join(", ")}${found.count > found.names.length ? ", …" : ""}`]);
    }
    for (const warning of loading?.warnings ?? []) facts.push(["Warning", el("span", { class: "warn" }, warning)]);
    if (one.pretraining) {
      const { recipe, seconds, job } = one.pretraining;
      const told = Object.entries(recipe).filter(([key]) => key !== "name").map(([key, value]) => `${key.replace("_", " ")} ${value}`);
      facts.push(["Pretrained here", [recipe.name ? `${recipe.name}: ` : "", told.join(", "), seconds ? `; ${time(seconds)}` : "", "; job ", el("code", {}, job)]]);
    }
    if (loading?.versions) facts.push(["Measured with", [Object.entries(loading.versions).map(([key, value]) => `${key} ${value}`).join(", "), loading.device ? ` on ${loading.device}` : ""]]);
    return el("div", {}, el("h4", {}, "What it is"),
      el("dl", { class: "about" }, facts.map(([label, value]) => [el("dt", {}, label), el("dd", { dir: "auto" }, value)])),
      loading ? null : el("p", { class: "fine" }, "This folder has no report on how it was loaded."));
  }

  function curves(one) {
    const chart = el("div", { class: "chart", role: "img", "aria-label": `Scores of ${one.name} over precisions; the table below has them all` });
    const lines = one.lines.filter((line) => line.cells.filter(Boolean).length > 1);
    if (!lines.length) return null;
    const used = data.precisions.filter((_, index) => lines.some((line) => line.cells[index]));
    const traces = lines.map((line) => {
      const look = page.colour(title(line));
      const points = line.cells.map((list, index) => [data.precisions[index], cell(list)]).filter(([, found]) => found);
      const away = (found, end) => (found[end] === null ? 0 : Math.abs(found[end] - found.value));
      return {
        type: "scatter", mode: "lines+markers", name: page.plain(title(line), 60),
        x: points.map(([precision]) => precision), y: points.map(([, found]) => found.value),
        error_y: { type: "data", symmetric: false, thickness: 1.2, width: 3, color: look.colour, array: points.map(([, found]) => away(found, "high")), arrayminus: points.map(([, found]) => away(found, "low")) },
        hovertemplate: `${page.plain(title(line), 60)}, %{x}: %{y:.1f} %<extra></extra>`,
        line: { color: look.colour, dash: look.dash, width: 2 }, marker: { color: look.colour, symbol: look.symbol, size: 7 },
      };
    });
    page.plot(chart, traces, {
      hovermode: "closest",
      xaxis: { type: "category", categoryorder: "array", categoryarray: used, range: [-0.35, used.length - 0.65] },
      yaxis: { title: { text: "Score (%)", standoff: 12 } },
    });
    const legend = lines.map((line) => {
      const look = page.colour(title(line));
      return el("li", { style: `--line: ${look.colour}`, "data-dash": look.dash }, el("bdi", { class: "name" }, title(line)));
    });
    return el("div", {}, el("h4", {}, "Its curves"), chart, el("ul", { class: "legend", "aria-label": "Lines" }, legend));
  }

  function title(line) {
    return [line.dataset, line.protocol, line.training, line.engine === "torch" ? "-" : line.engine, line.metric].filter((word) => word !== "-").join(" · ");
  }

  function numbers(one) {
    const used = data.precisions.map((_, index) => index).filter((index) => one.lines.some((line) => line.cells[index]));
    return el("div", { class: "whole" }, el("h4", {}, "Its numbers"),
      el("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": "Numbers of this checkpoint; scrolls" },
        el("table", {}, el("caption", { class: "aside" }, `Numbers of ${one.name}, one column per precision`),
          el("thead", {}, el("tr", {}, ["Task", "Group", "Policy"].map((label) => el("th", { scope: "col" }, label)), used.map((index) => el("th", { scope: "col", class: "num" }, data.precisions[index])))),
          el("tbody", {}, one.lines.map((line) => el("tr", {},
            el("th", { scope: "row" }, el("bdi", { class: "task" }, title({ ...line, metric: "-", engine: "torch" })),
              el("small", {}, [line.metric, line.engine].filter((word) => word !== "torch").join(", ")), line.source === "measured" ? null : board.badge(line.source)),
            el("td", {}, line.group === "-" ? "–" : board.groupLink(line.group)),
            el("td", {}, line.policy === "-" ? "–" : line.policy),
            used.map((index) => number(cell(line.cells[index])))))))));
  }

  function number(found) {
    if (!found) return el("td", { class: "num absent" }, "–");
    const interval = found.low === null ? null : `95 % interval ${found.low.toFixed(1)} to ${found.high.toFixed(1)}`;
    const seeds = `${found.n_seeds} ${found.n_seeds === 1 ? "seed" : "seeds"}`;
    return el("td", { class: "num", title: [seeds, interval, found.rank ? `rank ${found.rank}` : null].filter(Boolean).join("; ") },
      el("span", { class: "value" }, found.value.toFixed(1)),
      found.sd === null ? null : el("span", { class: "sd" }, `±\u202f${found.sd.toFixed(1)}`));
  }

  function costs(one) {
    const used = data.precisions.map((_, index) => index).filter((index) => one.costs.some((row) => row.at[index]));
    return el("div", { class: "whole" }, el("h4", {}, "Cost of its backbone"),
      el("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": "Costs; scrolls" },
        el("table", {}, el("caption", { class: "aside" }, `Bytes and bit-operations of ${one.name}`),
          el("thead", {}, el("tr", {}, ["Policy", "Image"].map((label) => el("th", { scope: "col" }, label)), used.map((index) => el("th", { scope: "col", class: "num" }, data.precisions[index])))),
          el("tbody", {}, one.costs.map((row) => el("tr", {},
            el("th", { scope: "row" }, row.policy === "-" ? "none" : name(row.policy)), el("td", {}, `${row.image_size} px`),
            used.map((index) => el("td", { class: "num" }, row.at[index]
              ? [`${scaled(row.at[index][0])}B`, el("small", {}, `${scaled(row.at[index][1])} bit-ops`)] : "–"))))))),
      el("p", { class: "fine" }, "Counted for integer hardware with packed codes, one image: MACs × the bits of both operands, 32 × 32 in attention (QKᵀ, AV) unless the policy quantizes Q, K and V. Here quantization is simulated."));
  }

  function pictures(one) {
    return el("div", { class: "whole" }, el("h4", {}, "What it found"),
      el("div", { class: "pictures" }, one.pictures.map((picture) => el("figure", {},
        el("img", { src: picture.image, alt: `The same test image with its annotated objects and with the detections (${picture.title})`, loading: "lazy", width: picture.width, height: picture.height }),
        el("figcaption", {}, el("bdi", {}, picture.title), ": truth left, found right")))));
  }

  function reproduction(one) {
    const lines = one.lines.filter((line) => line.jobs.length);
    const elsewhere = one.lines.some((line) => line.source !== "measured");
    const pretrained = one.pretraining ? [{ label: "The checkpoint itself", text: command("pretrain", [one.pretraining.job]) }] : [];
    const shell = [...new Map(lines.map((line) => [line.jobs.join(), line])).values()].map((line) => ({
      label: [title({ ...line, metric: "-" }), line.policy === "-" ? "" : `, policy ${line.policy}`, `; ${line.jobs.length} ${line.jobs.length === 1 ? "job" : "jobs"}`].join(""),
      text: command(line.task === "detection" ? "detect" : "transfer", line.jobs),
    }));
    return el("details", { class: "whole" }, el("summary", {}, "Reproduce each number with one command"),
      el("p", { class: "fine" }, runs() === "$RUNS" ? "RUNS is the folder of runs that this page was built from. " : "", "Each job's recipe, with every default written out, lies in its folder."),
      [...pretrained, ...shell].map(({ label, text }) => el("div", {}, el("p", { class: "fine" }, el("bdi", {}, label)), snippet(text))),
      elsewhere ? el("p", { class: "fine" }, "Submitted numbers are in their bundles.") : null);
  }

  // The runs folder, if the page is still in it.
  function runs() {
    const path = decodeURIComponent(location.pathname);
    const folder = location.protocol === "file:" ? /^(.*)\/leaderboard\/[^/]*$/.exec(path)?.[1] : null;
    return folder ? `'${folder.replaceAll("'", "'\\''")}'` : "$RUNS";
  }

  function command(tool, jobs) {
    const one = (job) => `lowbit-bench ${tool} --config-file ${runs()}/${job}/recipe.yaml --output-dir output/${job}`;
    return jobs.length === 1 ? one(jobs[0]) : `for job in ${jobs.join(" ")}; do\n  ${one("$job")}\ndone`;
  }

  function citation(one) {
    return el("details", { class: "whole" }, el("summary", {}, "Cite (BibTeX)"), snippet(one.cite.join("\n\n"), `${file(one)}.bib`));
  }

  function card(one) {
    return el("details", { class: "whole" }, el("summary", {}, "Hugging Face model card (model-index)"),
      el("p", { class: "fine" }, "Paste it at the top of the model's README.md, between two lines of three dashes. Numbers are percentages."),
      snippet(modelIndex(one, data), `${file(one)}.model-index.yaml`));
  }

  function file(one) {
    return one.name.replace(/[^A-Za-z0-9._-]+/g, "_").slice(0, 60);
  }

  function snippet(text, filename) {
    const copied = el("button", { type: "button", click: async () => said(copied, await page.copy(text)) }, "Copy");
    const saved = filename && el("button", { type: "button", click: () => page.download(filename, "text/plain", `${text}\n`) }, "Save");
    return el("div", { class: "snippet" }, el("pre", { tabindex: "0" }, text), el("div", { class: "actions" }, copied, saved || null));
  }

  function said(button, worked) {
    const label = button.textContent;
    button.textContent = worked ? "Copied" : "Not allowed";
    setTimeout(() => { button.textContent = label; }, 2000);
  }
};

function time(seconds) {
  if (seconds < 120) return `${seconds.toFixed(0)} s`;
  return seconds < 7200 ? `${(seconds / 60).toFixed(0)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

// A `model-index` as the Hub reads it. Strings are quoted as in JSON, which is valid YAML, so no name can escape its field.
function modelIndex(one, data) {
  const text = JSON.stringify;
  const tasks = { classification: ["image-classification", "Image Classification"], detection: ["object-detection", "Object Detection"] };
  const kinds = { "top-1": "accuracy", "mean per class": "mean_per_class_accuracy" };
  const lines = ["model-index:", `- name: ${text(one.name)}`, "  results:"];
  for (const line of one.lines) {
    const [type, label] = tasks[line.task];
    const how = [line.protocol, line.training, line.policy === "-" ? "-" : `policy ${line.policy} ${line.policy_fingerprint}`].filter((word) => word !== "-").join(", ");
    lines.push("  - task:", `      type: ${type}`, `      name: ${text(label)}`, "    dataset:", `      type: ${text(line.dataset)}`, `      name: ${text(line.dataset)}`, `      split: ${text(line.split)}`, "    metrics:");
    line.cells.forEach((list, index) => {
      if (!list) return;
      const found = Object.fromEntries(list.map((value, place) => [data.cell[place], value]));
      lines.push(`    - type: ${text(kinds[line.metric] ?? line.metric)}`, `      name: ${text(`${line.metric} at ${data.precisions[index]} (${how}; ${found.n_seeds} ${found.n_seeds === 1 ? "seed" : "seeds"})`)}`, `      value: ${found.value}`, "      verified: false");
    });
  }
  return lines.join("\n");
}
