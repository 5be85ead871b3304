// Dark or light, as chosen here before; the system's choice until then. Runs before anything is painted.
(() => {
  const KEY = "fssd-theme";
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  try {
    chosen = localStorage.getItem(KEY);
  } catch { /* storage may be forbidden */ }

  const isDark = () => (chosen ?? (dark.matches ? "dark" : "light")) === "dark";
  const apply = () => {
    document.documentElement.dataset.theme = isDark() ? "dark" : "light";
    document.getElementById("theme")?.setAttribute("aria-pressed", String(isDark()));
  };

  apply();
  dark.addEventListener("change", apply);
  document.addEventListener("DOMContentLoaded", () => {
    apply();
    document.getElementById("theme").addEventListener("click", () => {
      chosen = isDark() ? "light" : "dark";
      try {
        localStorage.setItem(KEY, chosen);
      } catch { /* it then lasts as long as the page */ }
      apply();
    });
  });
})();
