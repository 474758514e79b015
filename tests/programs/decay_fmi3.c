/* FMI 3 co-simulation: x' = -rate x, ends itself when x < floor. 1 rate, 2 floor, 3 x, 4 start. */
#include <math.h>
#include <stdlib.h>
#include "fmi3Functions.h"

typedef struct { double value[5]; } Model;

fmi3Instance fmi3InstantiateCoSimulation(
    fmi3String name, fmi3String token, fmi3String place, fmi3Boolean visible, fmi3Boolean logging,
    fmi3Boolean events, fmi3Boolean early, const fmi3ValueReference needed[], size_t n,
    fmi3InstanceEnvironment env, fmi3LogMessageCallback log, fmi3IntermediateUpdateCallback up) {
  Model *model = calloc(1, sizeof(Model));
  model->value[1] = model->value[4] = 1.0;
  return model;
}
void fmi3FreeInstance(fmi3Instance c) { free(c); }
fmi3Status fmi3EnterInitializationMode(fmi3Instance c, fmi3Boolean a, fmi3Float64 b,
                                       fmi3Float64 t0, fmi3Boolean d, fmi3Float64 t1) {
  return fmi3OK;
}
fmi3Status fmi3ExitInitializationMode(fmi3Instance c) {
  Model *model = c;
  model->value[3] = model->value[4];
  return fmi3OK;
}
fmi3Status fmi3Terminate(fmi3Instance c) { return fmi3OK; }
fmi3Status fmi3DoStep(fmi3Instance c, fmi3Float64 now, fmi3Float64 step, fmi3Boolean prior,
                      fmi3Boolean *event, fmi3Boolean *end, fmi3Boolean *early,
                      fmi3Float64 *last) {
  Model *model = c;
  model->value[3] *= exp(-model->value[1] * step);
  *event = *early = fmi3False;
  *end = model->value[3] < model->value[2];
  *last = now + step;
  return fmi3OK;
}
fmi3Status fmi3GetFloat64(fmi3Instance c, const fmi3ValueReference r[], size_t n,
                          fmi3Float64 v[], size_t m) {
  for (size_t k = 0; k < n; k++) v[k] = ((Model *)c)->value[r[k]];
  return fmi3OK;
}
fmi3Status fmi3SetFloat64(fmi3Instance c, const fmi3ValueReference r[], size_t n,
                          const fmi3Float64 v[], size_t m) {
  for (size_t k = 0; k < n; k++) ((Model *)c)->value[r[k]] = v[k];
  return fmi3OK;
}
