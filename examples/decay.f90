! u' = -rate u**order, u(0) = 1. Reads a namelist (run.nml), writes columns (state.dat).
program decay
  implicit none
  real(8) :: rate = 1d0, order = 1d0, u, step
  integer :: k, steps = 50
  namelist /run/ rate, order, steps
  open (10, file='run.nml', status='old')
  read (10, nml=run)
  close (10)
  if (rate < 0) stop 3
  u = 1d0
  step = 2d0/steps
  open (11, file='state.dat')
  write (11, '(a)') '# time  state'
  do k = 0, steps
    write (11, '(2d24.16)') k*step, u
    u = u - step*rate*u**order
    if (u < 0d0) stop
  end do
end program decay
