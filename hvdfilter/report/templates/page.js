"use strict";
// Draws the page's figures, and serves its switch, its class filters and its copy buttons.
(() => {
  const drawn = JSON.parse(document.getElementById("drawn").textContent);
  // The interpreter, because the page forbids evaluating text as code.
  const options = { actions: false, renderer: "svg", ast: true, config: drawn.config };
  for (const [name, spec] of Object.entries(drawn.figures)) {
    const place = document.getElementById("figure-" + name);
    const whole = { ...spec, width: "container", autosize: { type: "fit-x", contains: "padding" } };
    const layers = [spec, ...(spec.layer || [])].filter((layer) => layer.data);
    whole.datasets = Object.fromEntries(layers.map(({ data }) => [data.name, drawn.data[data.name]]));
    vegaEmbed(place, whole, options).catch((error) => {
      place.textContent = "This figure cannot be drawn here: " + error.message;
    });
  }

  const root = document.documentElement;
  const theme = document.getElementById("theme");
  const preferred = window.matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme || (preferred.matches ? "dark" : "light")) === "dark";
  const name = () => {
    theme.textContent = dark() ? "Light colours" : "Dark colours";
  };
  theme.hidden = false;
  theme.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    name();
  });
  preferred.addEventListener("change", name);
  name();

  for (const choice of document.querySelectorAll("select[data-gallery]")) {
    const images = document.getElementById("gallery-" + choice.dataset.gallery).children;
    choice.closest(".filter").hidden = false;
    choice.addEventListener("change", () => {
      const all = choice.selectedIndex === 0;
      for (const image of images) image.hidden = !all && image.dataset.label !== choice.value;
    });
  }

  const said = document.getElementById("said");
  for (const button of document.querySelectorAll("button.copy")) {
    const text = document.getElementById(button.dataset.copies);
    button.hidden = false;
    button.addEventListener("click", async () => {
      let done = true;
      try {
        await navigator.clipboard.writeText(text.textContent);
      } catch {
        // A page that is opened as a file may not have the clipboard; a selection it has.
        window.getSelection().selectAllChildren(text);
        done = document.execCommand("copy");
      }
      said.textContent = done ? "Copied." : "Selected: copy it with your keyboard.";
      button.firstChild.textContent = done ? "Copied" : "Selected";
    });
  }
})();
