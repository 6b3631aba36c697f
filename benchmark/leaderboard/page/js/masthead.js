// The names under the counts, the menu for the spread, and which section the bar marks.

function masthead({ overview, el, state }) {
  const fill = (what, names) => {
    const place = document.getElementById(`fact-${what}`);
    place.title = names.join(", ");
    place.replaceChildren(...names.slice(0, 12).flatMap((name, index) => [index ? ", " : "", el("bdi", {}, name)]));
  };
  fill("checkpoints", overview.checkpoints);
  fill("datasets", overview.datasets);
  fill("precisions", overview.precisions);
  fill("seeds", overview.seeds.map(String));

  const spread = document.getElementById("spread");
  const show = () => {
    spread.value = state.get("spread") || "sd";
    document.body.classList.toggle("intervals", spread.value === "interval");
  };
  spread.addEventListener("change", () => state.set("spread", spread.value === "sd" ? "" : spread.value));
  state.subscribe(show);
  show();

  const links = new Map([...document.querySelectorAll(".bar nav a")].map((link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(target.id).setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-20% 0px -79% 0px" });
  for (const id of links.keys()) seen.observe(document.getElementById(id));
}
