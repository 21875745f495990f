"use strict";
(function () {
  var MOST_SHOWN = 40;
  var data = JSON.parse(document.getElementById("data").textContent);
  var query = document.getElementById("query");
  var found = document.getElementById("found");
  var status = document.getElementById("status");
  var cut = document.getElementById("cut");
  var lower = data.images.map(function (image) { return image[0].toLowerCase(); });

  function element(name, text) {
    var made = document.createElement(name);
    if (text !== undefined) { made.textContent = text; }
    return made;
  }
  function row(image) {
    var item = element("li");
    var name = element("strong", image[0]);
    item.appendChild(name);
    if (image[1] >= 0) {
      var label = element("span", "  " + data.labels[image[1]] + "  ");
      label.className = "faint";
      item.appendChild(label);
    }
    item.appendChild(element("br"));
    var pairs = image[2];
    if (!pairs.length) { item.appendChild(element("span", "holds none of the structures on this page")); }
    for (var i = 0; i < pairs.length; i += 2) {
      var link = element("a", "structure " + pairs[i] + ": " + (pairs[i + 1] / 100).toFixed(2));
      link.href = "#structure-" + pairs[i];
      item.appendChild(link);
      item.appendChild(document.createTextNode(" "));
    }
    return item;
  }
  function search() {
    var wanted = query.value.trim().toLowerCase();
    found.textContent = "";
    found.hidden = cut.hidden = !wanted;
    if (!data.cut) { cut.hidden = true; }
    if (!wanted) { status.textContent = ""; return; }
    var hits = [];
    for (var i = 0; i < lower.length; i += 1) {
      if (lower[i].indexOf(wanted) >= 0) { hits.push(i); }
    }
    hits.sort(function (a, b) { return lower[a].length - lower[b].length || a - b; });
    hits.slice(0, MOST_SHOWN).forEach(function (hit) { found.appendChild(row(data.images[hit])); });
    status.textContent = hits.length + (hits.length === 1 ? " image" : " images") +
      (hits.length > MOST_SHOWN ? ", the first " + MOST_SHOWN + " listed" : "");
  }
  function follow() {
    var match = /^#image=(.*)$/.exec(location.hash);
    if (!match) {
      var target = document.getElementById(location.hash.slice(1));
      var select = document.getElementById("filter");
      if (target && target.hidden && select) { select.value = ""; filter(); }
      // Sections laid out on the way there are of other heights than thought: look again when they are.
      if (target) { requestAnimationFrame(function () { requestAnimationFrame(function () { target.scrollIntoView(); }); }); }
      return;
    }
    try { query.value = decodeURIComponent(match[1]); } catch (error) { query.value = match[1]; }
    search();
    query.focus();
    query.scrollIntoView({ block: "start" });
  }
  function filter() {
    var select = document.getElementById("filter");
    var shown = 0;
    document.querySelectorAll(".structure").forEach(function (section) {
      section.hidden = select.value !== "" && section.dataset.label !== select.value;
      if (!section.hidden) { shown += 1; }
    });
    status.textContent = select.value === "" ? "" : shown + (shown === 1 ? " structure" : " structures");
  }
  // Sections by falling number, or, for "parts", each below the one that it is a part of; equal ones by score.
  function arrange() {
    var list = document.getElementById("list");
    var order = document.getElementById("order").value;
    function below(whole, depth) {
      sections.forEach(function (section) {
        if (whole === undefined ? byNumber[section.dataset.parent] : section.dataset.parent !== whole) { return; }
        section.style.setProperty("--depth", Math.min(depth, 6));
        list.appendChild(section);
        if (parts[section.id]) { below(section.id.slice("structure-".length), depth + 1); }
      });
    }
    if (order === "parts") { below(undefined, 0); return; }
    sections.slice().sort(function (a, b) {
      return order === "score" ? 0 : b.dataset[order] - a.dataset[order];
    }).forEach(function (section) {
      section.style.removeProperty("--depth");
      list.appendChild(section);
    });
  }
  query.addEventListener("input", search);
  query.addEventListener("keydown", function (event) {
    if (event.key === "Escape") { query.value = ""; search(); }
  });
  var sections = Array.from(document.querySelectorAll(".structure"));
  var byNumber = {}, parts = {};
  sections.forEach(function (section) {
    byNumber[section.id.slice("structure-".length)] = section;
    parts["structure-" + section.dataset.parent] = true;
  });
  if (document.getElementById("order")) {
    document.getElementById("order").addEventListener("change", arrange);
    arrange();  // a browser may restore the choice of an earlier visit
  }
  if (document.getElementById("filter")) { document.getElementById("filter").addEventListener("change", filter); }
  var toggle = document.getElementById("keypoints");
  if (toggle) {
    var show = function () {
      document.querySelectorAll("img[data-plain]").forEach(function (image) {
        if (!image.dataset.drawn) { image.dataset.drawn = image.getAttribute("src"); }
        image.setAttribute("src", toggle.checked ? image.dataset.drawn : image.dataset.plain);
      });
    };
    toggle.addEventListener("change", show);
    if (!toggle.checked) { show(); }
  }
  window.addEventListener("hashchange", follow);
  follow();
}());
