// The search box opens with the page, and long equations can be reached with the keyboard.
document.addEventListener("DOMContentLoaded", () => {
  for (const box of document.querySelectorAll("div.math, .cell_output .output.text_html")) {
    if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
  }
});
