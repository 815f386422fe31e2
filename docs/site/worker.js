// Browsers refuse a worker from the file system: there the search runs in a hidden frame instead.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.onmessage = this.onerror = null
      this.waiting = []
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      document.body.append(this.frame)
      const inside = (this.inside = this.frame.contentWindow)
      inside.postMessage = data => this.tell(new MessageEvent("message", { data }))
      const script = inside.document.createElement("script")
      script.src = new URL(url, document.baseURI)
      script.onload = () => {
        const sent = this.waiting
        this.waiting = null
        sent.forEach(data => this.postMessage(data))
      }
      script.onerror = () => this.tell(new ErrorEvent("error", { message: `cannot load ${url}` }))
      inside.document.body.append(script)
    }

    tell(event) {
      setTimeout(() => {
        this[`on${event.type}`]?.(event)
        this.dispatchEvent(event)
      })
    }

    postMessage(data) {
      if (this.waiting) this.waiting.push(data)
      else setTimeout(() => this.inside?.dispatchEvent(new MessageEvent("message", { data })))
    }

    terminate() {
      this.frame.remove()
      this.inside = null
    }
  }
}
