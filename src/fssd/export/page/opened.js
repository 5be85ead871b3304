// Without a web server browsers load no modules; this plain script, which still runs, says what to do.
if (location.protocol === "file:") {
  document.addEventListener("DOMContentLoaded", () => {
    const text = "Browsers do not run a model from a file: put this folder on any web server, or try it here with";
    document.getElementById("problem-text").textContent = `${text} "python3 -m http.server" in the folder and http://localhost:8000.`;
    document.getElementById("again").hidden = true;
    document.getElementById("problem").hidden = false;
  });
}
