// Lines of points with their intervals and, where they are drawn against a cost, their Pareto front. A line is
//
//   {label, look, points: [{x, y, low, high, precision, text}]}
//
// look is of page.colour; low and high are null where the interval is not known; text is shown at the point.

const fronts = (() => {
  const away = (one, end) => (one[end] === null || one[end] === undefined ? 0 : Math.abs(one[end] - one.y));

  function trace({ label, look, points }, width) {
    const { colour, dash, symbol } = look;
    return {
      type: "scatter",
      mode: "lines+markers",
      name: plain(label),
      x: points.map((one) => one.x),
      y: points.map((one) => one.y),
      error_y: {
        type: "data", symmetric: false, thickness: 1.2, width: 3, color: colour,
        array: points.map((one) => away(one, "high")), arrayminus: points.map((one) => away(one, "low")),
      },
      text: points.map((one) => one.text),
      hovertemplate: "%{text}<extra></extra>",
      line: { color: colour, dash, width },
      marker: { color: colour, symbol, size: 8 },
    };
  }

  // The points that no other is both cheaper and better than, the cheapest first.
  function pareto(points) {
    const front = [];
    for (const one of [...points].sort((a, b) => a.x - b.x || b.y - a.y)) {
      if (!front.length || one.y > front.at(-1).y) front.push(one);
    }
    return front;
  }

  function step(points) {
    const front = pareto(points);
    if (!front.length) return [];
    const end = Math.max(...points.map((one) => one.x));
    return [{
      type: "scatter", mode: "lines+text", x: [...front.map((one) => one.x), end], y: [...front, front.at(-1)].map((one) => one.y),
      text: front.map((one) => one.precision), textposition: front.map((_, index) => (index ? "top left" : "top right")), textfont: { size: 11, color: "var(--text)" },
      line: { shape: "hv", dash: "dot", width: 2, color: "var(--muted)" }, hoverinfo: "skip", cliponaxis: false,
    }];
  }

  const traces = (lines) => [...step(lines.flatMap((line) => line.points)), ...lines.map((line) => trace(line, 1.2))];

  // 1, 2, 5, 10, ... or as many of the digits as the chart has room for; equal steps where the values are close.
  function ticks(least, most, width) {
    const room = Math.max(3, width / 90);
    for (const digits of [[1, 2, 5], [1, 3], [1]]) {
      const found = [];
      for (let power = Math.floor(Math.log10(least)); 10 ** power <= most; power += 1) found.push(...digits.map((digit) => digit * 10 ** power));
      const inside = found.filter((value) => value >= least && value <= most);
      if (inside.length > room) continue;
      if (inside.length > 1) return inside;
      break;
    }
    const gap = (most - least) / 2;
    const power = 10 ** Math.floor(Math.log10(gap));
    const even = power * [5, 2, 1].find((digit) => digit * power <= gap);
    return Array.from({ length: 6 }, (_, index) => (Math.ceil(least / even) + index) * even).filter((value) => value <= most);
  }

  // A logarithmic axis of a cost, in a chart `width` pixels wide.
  function axis(lines, title, unit, width) {
    const values = lines.flatMap((line) => line.points).map((one) => one.x);
    if (!values.length) return { title: { text: title, standoff: 10 }, showticklabels: false };
    const [least, most] = [Math.log10(Math.min(...values)), Math.log10(Math.max(...values))];
    const margin = Math.max(0.06 * (most - least), 0.02);
    const range = [least - margin, most + margin];
    const tickvals = ticks(10 ** range[0], 10 ** range[1], width);
    const ticktext = tickvals.map((value) => scaled(value).replace(/^\S+/, Number) + unit);
    return { type: "log", title: { text: title, standoff: 10 }, range, tickvals, ticktext };
  }

  return { trace, traces, axis };
})();

// A number with an SI prefix: 9.90 G, 412 µ.
function scaled(value) {
  const prefixes = ["n", "µ", "m", "", "k", "M", "G", "T", "P"];
  const step = Math.min(5, Math.max(-3, Math.floor(Math.log10(value || 1) / 3 + 1e-9)));
  return `${(value / 1000 ** step).toPrecision(3)} ${prefixes[step + 3]}`;
}
