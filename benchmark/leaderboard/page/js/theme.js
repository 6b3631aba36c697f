// Light or dark: the system's choice until the reader presses the switch, which is remembered.

{
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const button = document.getElementById("theme");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const changed = () => {
    button.setAttribute("aria-pressed", String(isDark()));
    document.dispatchEvent(new Event("themechange"));
  };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem("lowbit-theme", root.dataset.theme);
    } catch { /* private windows keep nothing */ }
    changed();
  });
  dark.addEventListener("change", changed);
  changed();
}
