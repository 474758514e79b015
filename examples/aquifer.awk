# Drawdown around a pumped well in a leaky aquifer, by finite differences on a logarithmic grid.
#   usage: awk -f aquifer.awk aquifer.dat
# The deck has fixed columns of ten characters:
#   1  title
#   2  flow (m3/d), transmissivity (m2/d), storage (-), resistance of the leaky layer (d)
#   3  number of observation wells; then one line each: name, distance (m)
# Writes aquifer.out: a block for each well, "DRAWDOWN IN WELL name", then minutes and metres.
function field(line, k,   text) {
    text = substr(line, 10 * k - 9, 10)
    if (text !~ /^ *[-+]?[0-9.]+([eEdD][-+]?[0-9]+)? *$/) {
        print "*ERROR: columns " 10 * k - 9 " to " 10 * k " hold no number: '" text "'"
        print "STOPPED"
        exit 3
    }
    return text + 0
}
{ line[NR] = $0 }
END {
    flow = field(line[2], 1); transmissivity = field(line[2], 2)
    storage = field(line[2], 3); resistance = field(line[2], 4)
    wells = field(line[3], 1)
    for (w = 1; w <= wells; w++) {
        name[w] = substr(line[3 + w], 1, 10); gsub(/ /, "", name[w])
        distance[w] = field(line[3 + w], 2)
    }
    n = 80; dx = 0.15; pi = 3.14159265358979
    for (i = 0; i <= n; i++) { r[i] = 0.1 * exp(i * dx); s[i] = 0 }
    for (t = 0.005; t < 1000; t += dt) {  # minutes, in growing implicit steps
        dt = 0.05 * t; days = dt / 1440
        for (i = 0; i <= n; i++) {  # S r^2 s_t = T s_xx - r^2 s / c with x = ln r
            b = storage * r[i] ^ 2 / days
            diagonal = b + r[i] ^ 2 / resistance + 2 * transmissivity / dx ^ 2
            right = b * s[i]
            lower = transmissivity / dx ^ 2; upper = lower
            if (i == 0) { right += lower * 2 * dx * flow / (2 * pi * transmissivity); upper += lower; lower = 0 }
            pivot = diagonal - (i > 0 ? lower * c[i - 1] : 0)
            c[i] = upper / pivot
            d[i] = (right + (i > 0 ? lower * d[i - 1] : 0)) / pivot
        }
        s[n] = 0  # far away nothing moves
        for (i = n - 1; i >= 0; i--) s[i] = d[i] + c[i] * s[i + 1]
        for (w = 1; w <= wells; w++) {
            i = int(log(distance[w] / 0.1) / dx); part = (log(distance[w] / 0.1) - i * dx) / dx
            table[w] = table[w] sprintf("%12.5f %14.8f\n", t + dt, s[i] + part * (s[i + 1] - s[i]))
        }
    }
    for (w = 1; w <= wells; w++)
        printf "\n DRAWDOWN IN WELL %s\n       minutes         metres\n%s", name[w], table[w] > "aquifer.out"
    print "NORMAL END"
}
