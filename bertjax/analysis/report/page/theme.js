// The theme: the system's, or the reader's. The page has to have a function drawAll.

function showTheme() {
  const chosen = document.documentElement.dataset.theme;
  const names = { light: "Light", dark: "Dark" };
  byId("theme").textContent = `Theme: ${names[chosen] || "as the system"}`;
}

// system -> the other one -> back to the system's own.
function turnTheme() {
  const root = document.documentElement;
  const order = ["", "light", "dark"];
  const next = order[(order.indexOf(root.dataset.theme || "") + 1) % order.length];
  if (next) root.dataset.theme = next;
  else delete root.dataset.theme;
  showTheme();
  drawAll();
}

function setUpTheme() {
  byId("theme").addEventListener("click", turnTheme);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  showTheme();
}
