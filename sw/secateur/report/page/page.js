"use strict";
(() => {
  const options = { responsive: true, displaylogo: false };

  function draw(plot) {
    if (plot.dataset.drawn) return;
    plot.dataset.drawn = "begun";
    const found = JSON.parse(plot.nextElementSibling.textContent);
    Plotly.newPlot(plot, found.data, found.layout, options).then(() => {
      plot.dataset.drawn = "yes";
      plot.on("plotly_click", (event) => {
        const layer = event.points[0].customdata;
        if (plot.parentElement.id === "network" && typeof layer === "number") choose(layer, true);
      });
    });
  }

  function choose(layer, go) {
    for (const section of document.querySelectorAll(".layer")) section.hidden = true;
    const section = document.getElementById(`layer-${layer}`);
    if (!section) return;
    section.hidden = false;
    document.querySelector("#choice select").value = String(layer);
    section.querySelectorAll(".plot").forEach(draw);
    if (go) section.focus();
  }

  for (const plot of document.querySelectorAll("main > figure > .plot")) draw(plot);
  const list = document.querySelector("#choice select");
  if (list) {
    list.addEventListener("change", () => choose(Number(list.value), false));
    choose(0, false);
  }
})();
