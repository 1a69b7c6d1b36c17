// What can be scrolled sideways can be reached and scrolled with the keyboard, also after the
// formulas are typeset and after the window has changed its width.
(() => {
  const boxes = "mjx-container[display], div.math, table, pre, .cell_output .output, "
    + ".cell-output-display, .pst-scrollable-table-container, span.math.inline";
  const mark = () => {
    for (const box of document.querySelectorAll(boxes)) {
      const scrolls = /auto|scroll/.test(getComputedStyle(box).overflowX)
        && box.scrollWidth > box.clientWidth + 1;
      if (scrolls && !box.hasAttribute("tabindex")) {
        box.tabIndex = 0;
        box.dataset.scrolls = "";
      } else if (!scrolls && "scrolls" in box.dataset) {
        box.removeAttribute("tabindex");
        delete box.dataset.scrolls;
      }
    }
  };
  let timer;
  const later = () => { clearTimeout(timer); timer = setTimeout(mark, 150); };
  addEventListener("resize", later);
  addEventListener("load", () => {
    mark();
    window.MathJax?.startup?.promise?.then(mark);
    // names that differ from the text that is seen hide it from those who speak or listen
    for (const e of document.querySelectorAll(".search-button-field, .pagination-link"))
      e.removeAttribute("aria-label");
    for (const e of document.querySelectorAll('a.sidebar-item-toggle[role="navigation"]'))
      e.setAttribute("role", "button");
  });
})();
