// On every page: the theme's switch, and times in the reader's own time zone.

const THEMES = ["system", "light", "dark"];
const SAID = { system: "system", light: "light", dark: "dark" };

const root = document.documentElement;
const button = document.getElementById("theme");

function show(theme) {
  if (theme === "system") {
    delete root.dataset.theme;
    localStorage.removeItem("theme");
  } else {
    root.dataset.theme = theme;
    localStorage.setItem("theme", theme);
  }
  button.dataset.theme = theme;
  button.setAttribute("aria-label", `Theme: ${SAID[theme]}`);
  button.title = `Theme: ${SAID[theme]}`;
  document.dispatchEvent(new Event("themechange"));
}

show(root.dataset.theme ?? "system");
button.hidden = false;
button.addEventListener("click", () => {
  show(THEMES[(THEMES.indexOf(button.dataset.theme) + 1) % THEMES.length]);
});

for (const time of document.querySelectorAll("time")) {
  time.textContent = new Date(time.dateTime).toLocaleString(undefined, {
    dateStyle: "medium",
    timeStyle: "short",
  });
}
