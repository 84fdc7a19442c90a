// What scrolls sideways can be reached by the keyboard: wide tables and blocks of code.
addEventListener("load", () => {
  for (const box of document.querySelectorAll(".md-typeset__scrollwrap, .md-typeset pre > code")) box.tabIndex = 0;
});
