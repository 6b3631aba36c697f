// What the reader chose, kept in the address so that a link shows the same thing again:
//
//   index.html#classification?classification.dataset=digits&checkpoint=a&checkpoint=b
//
// Before the question mark the place on the page, after it the choices. A key holds a text or a list of
// texts; keys of one section begin with its name.

const state = (() => {
  const listeners = [];
  let place = "";
  let choices = new URLSearchParams();

  const parse = () => {
    const [anchor, ...query] = location.hash.slice(1).split("?");
    return [decodeURIComponent(anchor), query.join("?")];
  };
  const address = (at = place) => {
    const query = choices.toString();
    return `#${encodeURIComponent(at)}${query ? `?${query}` : ""}`;
  };
  const write = () => history.replaceState(history.state, "", address());
  const tell = (key) => listeners.forEach((listener) => listener(key));
  const go = () => {
    let element = document.getElementById(place);
    for (let part = element; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
    element?.scrollIntoView();
  };

  addEventListener("hashchange", () => {
    const [anchor, query] = parse();
    place = anchor;
    if (query) {  // somebody's link
      choices = new URLSearchParams(query);
      tell(null);
    } else if (choices.size) {  // a link of the page's own, to a place: the choices stay
      write();
    }
    go();
  });

  const [anchor, query] = parse();
  place = anchor;
  choices = new URLSearchParams(query);

  return {
    get: (key) => choices.get(key) ?? "",
    list: (key) => choices.getAll(key),
    // An empty text or list takes the key away.
    set(key, value) {
      choices.delete(key);
      for (const text of [value].flat()) if (text) choices.append(key, text);
      write();
      tell(key);
    },
    // `listener(key)` is called after each change; null: everything may have changed.
    subscribe: (listener) => listeners.push(listener),
    // The link to what is shown now, at an element of the page.
    link: (id) => location.href.split("#")[0] + address(id),
    go,
  };
})();
