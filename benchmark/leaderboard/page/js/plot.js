// Charts. Plotly is unpacked when the first chart is scrolled near. Custom properties in traces and layout,
// such as "var(--line-0)", are resolved, and again when the theme changes.

const plot = (() => {
  const charts = new Map();  // element -> its content
  const drawn = new Set();
  let library = null;

  const load = () => library ??= unpack("plotly").then((text) => {
    document.head.append(el("script", {}, text));
  });

  function resolve(value) {
    if (typeof value === "string") return value.replace(/var\((--[\w-]+)\)/g, (_, variable) => css(variable));
    if (Array.isArray(value)) return value.map(resolve);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, resolve(item)]));
  }

  function dressed(layout) {
    const axis = { gridcolor: "var(--rule)", linecolor: "var(--rule)", zeroline: false, automargin: true, fixedrange: true };
    const axes = Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key));
    return {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: css("--sans"), size: 13, color: "var(--muted)" },
      margin: { l: 8, r: 8, t: 12, b: 8 },
      showlegend: false,
      hoverlabel: { bgcolor: "var(--raised)", bordercolor: "var(--rule)", font: { color: "var(--text)" } },
      xaxis: axis,
      yaxis: axis,
      ...layout,
      ...Object.fromEntries(axes.map((key) => [key, { ...axis, ...layout[key] }])),
    };
  }

  async function draw(element) {
    await load();
    const { traces, layout } = charts.get(element);
    drawn.add(element);
    return Plotly.react(element, resolve(traces), resolve(dressed(layout)), {
      responsive: true, displaylogo: false, displayModeBar: false, plotlyServerURL: "",
    });
  }

  const watch = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      watch.unobserve(target);
      draw(target);
    }
  }, { rootMargin: "600px" });

  document.addEventListener("themechange", () => drawn.forEach(draw));
  addEventListener("beforeprint", () => charts.forEach((_, element) => draw(element)));

  return (element, traces, layout = {}) => {
    charts.set(element, { traces, layout });
    if (drawn.has(element)) draw(element);
    else watch.observe(element);
  };
})();
