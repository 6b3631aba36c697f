// The names under the counts, the menu of the spread, and the current section in the navigation bar.

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

// The facts that each group shares, and the meaning of policies' fingerprints.

sections.notes = ({ data, el, name }) => {
  const fill = (id, rows) => document.querySelector(`#${id} tbody`)?.replaceChildren(...rows);
  const cells = (values) => values.map((value) => el("td", {}, value));
  fill("groups", Object.entries(data.groups).map(([letter, facts]) => el("tr", { id: `group-${letter}` },
    el("th", { scope: "row" }, letter),
    cells([
      facts.task, name(facts.dataset), facts.split,
      el("code", { title: facts.split_sha256 }, facts.split_sha256.slice(0, 12)),
      name(facts.protocol), facts.protocol_version, facts.image_size,
      facts.images.map((n) => n.toLocaleString("en")).join(", ") || "–", name(facts.engine),
      facts.board_policy === "-" ? "any" : el("code", {}, facts.board_policy),
    ]))));
  fill("policies", data.policies.map((policy) => el("tr", {},
    el("th", { scope: "row" }, name(policy.name)),
    el("td", {}, el("code", {}, policy.fingerprint)),
    el("td", { class: "prose" }, policy.text))));
};
