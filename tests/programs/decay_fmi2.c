/* FMI 2 model exchange: x' = -rate x, x(0) = start. Variables: 0 rate, 1 start, 2 x, 3 der(x). */
#include <stdlib.h>
#include "fmi2Functions.h"

typedef struct { double value[4]; } Model;

fmi2Component fmi2Instantiate(fmi2String name, fmi2Type type, fmi2String guid, fmi2String place,
                              const fmi2CallbackFunctions *calls, fmi2Boolean visible,
                              fmi2Boolean logging) {
  Model *model = calloc(1, sizeof(Model));
  model->value[0] = model->value[1] = 1.0;
  return model;
}
void fmi2FreeInstance(fmi2Component c) { free(c); }
fmi2Status fmi2SetupExperiment(fmi2Component c, fmi2Boolean a, fmi2Real b, fmi2Real t0,
                               fmi2Boolean d, fmi2Real t1) { return fmi2OK; }
fmi2Status fmi2EnterInitializationMode(fmi2Component c) { return fmi2OK; }
fmi2Status fmi2ExitInitializationMode(fmi2Component c) {
  Model *model = c;
  model->value[2] = model->value[1];
  return model->value[0] < 0 ? fmi2Error : fmi2OK;
}
fmi2Status fmi2EnterEventMode(fmi2Component c) { return fmi2OK; }
fmi2Status fmi2EnterContinuousTimeMode(fmi2Component c) { return fmi2OK; }
fmi2Status fmi2Terminate(fmi2Component c) { return fmi2OK; }
fmi2Status fmi2SetTime(fmi2Component c, fmi2Real time) { return fmi2OK; }
fmi2Status fmi2NewDiscreteStates(fmi2Component c, fmi2EventInfo *info) {
  info->newDiscreteStatesNeeded = info->terminateSimulation = fmi2False;
  info->nominalsOfContinuousStatesChanged = info->valuesOfContinuousStatesChanged = fmi2False;
  info->nextEventTimeDefined = fmi2False;
  return fmi2OK;
}
fmi2Status fmi2CompletedIntegratorStep(fmi2Component c, fmi2Boolean prior, fmi2Boolean *event,
                                       fmi2Boolean *end) {
  *event = *end = fmi2False;
  return fmi2OK;
}
fmi2Status fmi2GetContinuousStates(fmi2Component c, fmi2Real x[], size_t n) {
  x[0] = ((Model *)c)->value[2];
  return fmi2OK;
}
fmi2Status fmi2SetContinuousStates(fmi2Component c, const fmi2Real x[], size_t n) {
  ((Model *)c)->value[2] = x[0];
  return fmi2OK;
}
fmi2Status fmi2GetDerivatives(fmi2Component c, fmi2Real dx[], size_t n) {
  Model *model = c;
  dx[0] = -model->value[0] * model->value[2];
  return fmi2OK;
}
fmi2Status fmi2GetNominalsOfContinuousStates(fmi2Component c, fmi2Real x[], size_t n) {
  x[0] = 1.0;
  return fmi2OK;
}
fmi2Status fmi2GetEventIndicators(fmi2Component c, fmi2Real z[], size_t n) { return fmi2OK; }
fmi2Status fmi2GetReal(fmi2Component c, const fmi2ValueReference r[], size_t n, fmi2Real v[]) {
  for (size_t k = 0; k < n; k++) v[k] = ((Model *)c)->value[r[k]];
  return fmi2OK;
}
fmi2Status fmi2SetReal(fmi2Component c, const fmi2ValueReference r[], size_t n,
                       const fmi2Real v[]) {
  for (size_t k = 0; k < n; k++) ((Model *)c)->value[r[k]] = v[k];
  return fmi2OK;
}
