// One time through all plots: a line at the pointer's time in each, and what was in force then.
(function () {
  "use strict";
  var plots = Array.prototype.slice.call(document.querySelectorAll("svg.plot"));
  var at = document.getElementById("at");
  if (!plots.length || !at) return;
  var faults = Array.prototype.slice.call(document.querySelectorAll("[data-t]")).map(function (e) {
    return { a: +e.dataset.a, b: +e.dataset.b, t: e.dataset.t };
  });
  var pinned = false;
  plots.forEach(function (svg) {
    var d = svg.dataset, line = document.createElementNS("http://www.w3.org/2000/svg", "line");
    line.setAttribute("class", "cross");
    line.setAttribute("y1", d.top);
    line.setAttribute("y2", d.bottom);
    line.setAttribute("visibility", "hidden");
    svg.appendChild(line);
    svg.cross = line;
  });
  function hide() {
    plots.forEach(function (svg) { svg.cross.setAttribute("visibility", "hidden"); });
    at.textContent = "Point at a plot to see one time in all of them; click to keep it.";
  }
  function show(ns) {
    plots.forEach(function (svg) {
      var d = svg.dataset, share = (ns - d.from) / (d.to - d.from);
      if (share < 0 || share > 1) { svg.cross.setAttribute("visibility", "hidden"); return; }
      var x = +d.left + share * (d.right - d.left);
      svg.cross.setAttribute("x1", x);
      svg.cross.setAttribute("x2", x);
      svg.cross.setAttribute("visibility", "visible");
    });
    var now = faults.filter(function (f) { return f.a <= ns && ns <= f.b; });
    var names = now.slice(0, 8).map(function (f) { return f.t; });
    if (now.length > 8) names.push("and " + (now.length - 8) + " more");
    var time = document.createElement("b");
    time.textContent = (ns / 1e9).toFixed(4) + " s";
    at.textContent = "";
    at.appendChild(time);
    at.appendChild(document.createTextNode("  ·  " + (names.length ? names.join("  ·  ") : "no fault in force") + (pinned ? "  ·  kept: click again to let go" : "")));
  }
  function time(event) {
    var svg = event.target.closest && event.target.closest("svg.plot");
    if (!svg) return null;
    var box = svg.getBoundingClientRect(), d = svg.dataset;
    var x = (event.clientX - box.left) * svg.viewBox.baseVal.width / box.width;
    var share = (x - d.left) / (d.right - d.left);
    return share < 0 || share > 1 ? null : +d.from + share * (d.to - d.from);
  }
  document.addEventListener("pointermove", function (event) {
    if (pinned) return;
    var ns = time(event);
    if (ns === null) hide(); else show(ns);
  });
  document.addEventListener("click", function (event) {
    var ns = time(event);
    if (ns === null) return;
    pinned = !pinned;
    show(ns);
  });
  hide();
})();
