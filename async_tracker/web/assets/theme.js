// @ts-check
// Before anything is painted: the theme that was chosen here, else the system's.
(() => {
  let theme = null;
  try {
    theme = localStorage.getItem("async-tracker theme");
  } catch {
    // Storage is switched off in this browser: the system's theme it is.
  }
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
})();
