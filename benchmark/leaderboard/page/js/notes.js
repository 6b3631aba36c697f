// What the groups share, and what the policies' fingerprints stand for.

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
