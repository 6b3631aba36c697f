// Makes the tables sortable and filterable and draws the curves. `DataTable` is imported above.

function activate(toolbar) {
  const element = document.getElementById(toolbar.dataset.for);
  const rows = [...element.tBodies[0].rows];
  const table = new DataTable(element, {
    paging: false,
    info: false,
    autoWidth: false,
    order: [],
    layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null },
    columnDefs: [{ targets: "num", type: "num", orderSequence: ["desc", "asc"] }],
    language: { zeroRecords: "No row matches." },
  });
  const search = toolbar.querySelector("input");
  const menus = [...toolbar.querySelectorAll("select")];
  const count = toolbar.querySelector(".count");
  table.search.fixed("facets", (text, data, index) =>
    menus.every((menu) => !menu.value || rows[index].dataset[menu.name] === menu.value));
  const filter = () => {
    table.search(search.value).draw();
    const shown = table.rows({ search: "applied" }).count();
    count.textContent = shown === rows.length ? `${shown} rows` : `${shown} of ${rows.length} rows`;
  };
  search.addEventListener("input", filter);
  for (const menu of menus) menu.addEventListener("change", filter);
  // Rules between groups only make sense in the order they were written in.
  table.on("order", () => element.classList.toggle("sorted", table.order().length > 0));
}

function drawCurves(figures) {
  const plot = document.getElementById("plot");
  const legend = document.getElementById("legend");
  const menu = document.getElementById("figure");
  const hidden = new Set();
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function layout(figure) {
    const axis = {
      gridcolor: css("--rule"), linecolor: css("--rule"), zeroline: false, automargin: true,
      fixedrange: true,
    };
    return {
      paper_bgcolor: css("--page"),
      plot_bgcolor: css("--page"),
      font: { family: css("--sans"), size: 13, color: css("--muted") },
      margin: { l: 8, r: 8, t: 12, b: 8 },
      showlegend: false,
      hovermode: "x unified",
      hoverdistance: -1,  // the nearest precision, however far the pointer is from its points
      hoverlabel: { bgcolor: css("--raised"), bordercolor: css("--rule"), font: { color: css("--text") } },
      xaxis: { ...axis, type: "category", categoryarray: figure.precisions, categoryorder: "array",
               title: { text: "precision (weights, activations)" }, showgrid: false,
               spikecolor: css("--muted"), spikethickness: 1 },
      yaxis: { ...axis, title: { text: figure.metric } },
    };
  }

  function traces(figure) {
    return figure.traces.map((trace) => {
      const colour = css(`--line-${trace.meta.colour}`);
      return {
        ...trace,
        visible: !hidden.has(trace.meta.label),
        line: { ...trace.line, color: colour },
        marker: { ...trace.marker, color: colour },
        error_y: { ...trace.error_y, color: colour },
      };
    });
  }

  function entry(trace) {
    const button = document.createElement("button");
    button.type = "button";
    button.style.setProperty("--line", `var(--line-${trace.meta.colour})`);
    button.dataset.dash = trace.line.dash;
    button.setAttribute("aria-pressed", String(!hidden.has(trace.meta.label)));
    const name = document.createElement("bdi");
    name.className = "name";
    name.textContent = name.title = trace.meta.label;
    button.append(name);
    button.addEventListener("click", () => {
      if (!hidden.delete(trace.meta.label)) hidden.add(trace.meta.label);
      button.setAttribute("aria-pressed", String(!hidden.has(trace.meta.label)));
      draw();
    });
    return button;
  }

  function draw() {
    const figure = figures[Number(menu.value)];
    return Plotly.react(plot, traces(figure), layout(figure), {
      responsive: true, displaylogo: false, displayModeBar: false, plotlyServerURL: "",
    });
  }

  function choose() {
    legend.replaceChildren(...figures[Number(menu.value)].traces.map(entry));
    draw();
  }

  menu.addEventListener("change", choose);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  choose();
}

for (const toolbar of document.querySelectorAll(".toolbar[data-for]")) activate(toolbar);
const figures = JSON.parse(document.getElementById("figures").textContent);
if (figures.length) drawCurves(figures);
document.documentElement.dataset.ready = "true";
